"""The player in a browser: the package's numbers, sound without a gap, a cursor where it sounds."""

import base64
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page

from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.report import page as report
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import FORMATS, PRESETS, band_edges
from tests.web.measures import PLAYER, between_pictures, cursor_errors, show_long_picture
from tests.web.pages import ORIGIN, answer, opened

MINI = PRESETS["mini"]
RATE = MINI.sample_rate
SECONDS = 3.2
ROUNDING = 2.0**-15
"""Browsers divide positive 16-bit samples by 32767, negative ones by 32768."""
HTML = f"""{PLAYER}
<mel-player label="a test" brush style="width: 900px"><img alt="one" src="a.png"><audio title="one" src="a.wav"></audio>
<img alt="two" src="b.png"><audio title="two" src="b.wav"></audio></mel-player>"""
CAPTURE = """registerProcessor("capture", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage({ frame: currentFrame, samples: input[0].slice() });
    return true;
  }
});"""
LISTEN = """async (capture) => {
  const player = document.querySelector("mel-player");
  await player.play();
  player.pause();
  const context = player.transport.context;
  await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(capture)}`);
  const node = new AudioWorkletNode(context, "capture", { channelCount: 1 });
  node.connect(context.destination);
  window.heard = [];
  node.port.onmessage = ({ data }) => window.heard.push(data);
  player.transport.destination = node;
  player.seek(0);
}"""


def _sound(name: str) -> np.ndarray:
    """Return a sound of whose samples no two are near each other, and that differs by name."""
    noise = numpy_generator(0, "sound", name).uniform(-0.5, 0.5, (1, int(SECONDS * RATE)))
    return (np.round(noise * 32768) / 32768).astype(np.float32)


def _wav(sound: np.ndarray) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, sound.T, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    levels = {name: numpy_generator(0, name).integers(0, 256, (128, 200, 1), dtype=np.uint8) for name in "ab"}
    files: dict[str, bytes | str] = {"index.html": HTML}
    for name, picture in levels.items():
        files |= {f"{name}.png": encode_png(Spectrogram(picture, MINI)), f"{name}.wav": _wav(_sound(name))}
    with opened(browser, viewport={"width": 1000, "height": 600}) as page:
        answer(page, files)
        page.goto(f"{ORIGIN}/index.html")
        page.wait_for_selector("mel-player[data-ready]")
        page.evaluate(LISTEN, CAPTURE)
        yield page


@pytest.fixture
def player(page: Page) -> Page:
    """The page, its player at rest at the start, nothing zoomed, looped or marked."""
    page.evaluate(
        """() => { const player = document.querySelector("mel-player"); player.pause(); player.select(0);
        player.loop = null; player.regions = []; player.seek(0);
        player.view = { start: 0, end: player.seconds, low: 0, high: 1 }; }"""
    )
    page.wait_for_timeout(60)  # What was playing fades out.
    page.evaluate("() => { heard.length = 0; }")
    page.locator(".mel-surface").focus()
    return page


def state(page: Page, expression: str) -> object:
    return page.evaluate(f"() => {{ const player = document.querySelector('mel-player'); return {expression}; }}")


def heard(page: Page, seconds: float) -> tuple[np.ndarray, int]:
    """Return what was captured while `seconds` passed, (n,) samples from the first that is not 0, and its frame."""
    page.wait_for_timeout(1000 * seconds)
    blocks = page.evaluate("() => heard.map(({ frame, samples }) => [frame, Array.from(samples)])")
    samples = np.concatenate([block for _, block in blocks]).astype(np.float32)
    assert [frame - blocks[0][0] for frame, _ in blocks] == [128 * k for k in range(len(blocks))]
    first = int(np.flatnonzero(samples)[0])
    return samples[first:], blocks[0][0] + first


@pytest.mark.parametrize("name", FORMATS)
def test_rows_have_the_frequencies_of_the_filter_bank(page: Page, name: str) -> None:
    spec = FORMATS[name]
    centres = band_edges(spec.n_mels, spec.fmin, spec.fmax, spec.mel_scale)[1:-1]
    found = page.evaluate(
        """async (spec) => { const { hzAt, heightOf } = await import("./axes.js");
        const heights = Array.from({ length: spec.n_mels }, (_, row) => (row + 0.5) / spec.n_mels);
        const hertz = heights.map((height) => hzAt(height, spec));
        return [hertz, Math.max(...hertz.map((hz, row) => Math.abs(heightOf(hz, spec) - heights[row])))]; }""",
        spec.model_dump(mode="json"),
    )
    np.testing.assert_allclose(found[0], centres, rtol=1e-9)
    assert found[1] < 1e-9


def test_colours_step_evenly_from_dark_to_light(page: Page) -> None:
    """Euclidean steps in OKLab, found by an own inverse from sRGB, differ by little."""
    maps = page.evaluate(
        """async () => { const { COLOUR_MAPS, colours } = await import("./colours.js");
        return Object.fromEntries(COLOUR_MAPS.map((name) => [name, colours(name)])); }"""
    )
    assert len(maps) >= 4
    for name, table in maps.items():
        lab = _oklab(np.array(table))
        steps = np.linalg.norm(np.diff(lab[::16], axis=0), axis=1)
        assert np.abs(steps / steps.mean() - 1).max() < 0.2, name
        assert (np.diff(lab[::16, 0]) > 0).all() or (np.diff(lab[::16, 0]) < 0).all(), name


def _oklab(rgb: np.ndarray) -> np.ndarray:
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cone = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                     [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    mix = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return np.cbrt(linear @ cone.T) @ mix.T


@pytest.mark.slow
def test_what_is_heard_is_the_file_sample_by_sample(player: Page) -> None:
    state(player, "player.play()")
    samples, _ = heard(player, 0.6)
    np.testing.assert_allclose(samples[:8000], _sound("a")[0, :8000], atol=ROUNDING)


@pytest.mark.slow
def test_the_cursor_is_where_it_sounds(player: Page) -> None:
    state(player, "player.play()")
    samples, frame = heard(player, 0.3)
    place = int(np.argmax(np.abs(samples[:4000]) > 0.49))
    shown = state(player, f"player.timeAt({(frame + place) / RATE})")
    assert shown == pytest.approx(place / RATE, abs=1e-4)
    # What the page calls heard now trails what is computed by the device's delay, and never by more.
    behind = state(player, "player.timeAt(player.transport.context.currentTime) - player.time")
    assert -1e-3 < behind < 0.2


@pytest.mark.slow
def test_the_cursor_is_drawn_within_twenty_milliseconds_of_what_sounds(player: Page) -> None:
    state(player, "player.play()")
    player.wait_for_timeout(300)
    assert float(np.median(cursor_errors(player))) < 20


@pytest.mark.slow
def test_a_loop_has_no_gap(player: Page) -> None:
    player.evaluate("() => { document.querySelector('mel-player').loop = { start: 0.5, end: 0.6 }; }")
    state(player, "player.play()")
    samples, _ = heard(player, 0.7)
    once = _sound("a")[0, 8000:9600]
    skipped = round(0.01 * RATE)
    expected = np.tile(once, 5)[skipped + 1 : 8000]  # The first sample is faded in from 0.
    np.testing.assert_allclose(samples[skipped : len(expected) + skipped], expected, atol=ROUNDING)


@pytest.mark.slow
def test_blocks_of_a_sound_follow_each_other_without_a_gap(player: Page) -> None:
    sound = _sound("a")
    cuts = [0, 3001, 9000, 16000]
    blocks = [base64.b64encode(_wav(sound[:, a:b])).decode() for a, b in pairwise(cuts)]
    player.evaluate(
        """async (blocks) => {
          const { BlockStream } = await import("./sound.js");
          const { bytesOf } = await import("./picture.js");
          const stream = new BlockStream();
          stream.destination = document.querySelector("mel-player").transport.destination;
          const add = async (block) => stream.append(await bytesOf(`data:audio/wav;base64,${block}`));
          await add(blocks[0]);
          await stream.play();
          for (const block of blocks.slice(1)) await add(block);
        }""",
        blocks,
    )
    samples, _ = heard(player, 1.2)
    np.testing.assert_array_equal(np.rint(samples[:16000] * 32768), sound[0, :16000] * 32768)


@pytest.mark.slow
def test_the_file_goes_on_where_its_blocks_end_without_a_gap(player: Page) -> None:
    """What was heard block by block becomes the player's at one sample."""
    sound = _sound("a")
    player.evaluate(
        """async (block) => {
          const { BlockStream } = await import("./sound.js");
          const { bytesOf } = await import("./picture.js");
          const player = document.querySelector("mel-player");
          const stream = new BlockStream();
          stream.destination = player.transport.destination;
          stream.append(await bytesOf(`data:audio/wav;base64,${block}`));
          await stream.play();
          await new Promise((resume) => setTimeout(resume, 250));
          await player.follow(stream);
        }""",
        base64.b64encode(_wav(sound)).decode(),
    )
    samples, _ = heard(player, 0.8)
    assert state(player, "player.playing")
    np.testing.assert_allclose(samples[:12000], sound[0, :12000], atol=ROUNDING)


@pytest.mark.slow
def test_one_key_switches_at_the_same_place(player: Page) -> None:
    player.keyboard.press(" ")
    player.wait_for_timeout(200)
    player.keyboard.press("x")
    samples, _ = heard(player, 0.4)
    assert state(player, "player.selected") == 1
    one, other = _sound("a")[0, : len(samples)], _sound("b")[0, : len(samples)]
    from_one, from_other = (np.abs(samples - each) <= ROUNDING for each in (one, other))
    switched = int(np.flatnonzero(~from_one)[0])
    fade = np.flatnonzero(from_other[switched:])[0] + 2 * 128
    assert from_one[:switched].all()
    assert from_other[switched + fade :].all()
    assert fade < 0.03 * RATE
    assert player.get_by_role("button", name="two").get_attribute("aria-pressed") == "true"


def test_every_action_has_a_key(player: Page) -> None:
    press = player.keyboard.press
    press("ArrowRight")
    press("Shift+ArrowRight")
    assert state(player, "player.time") == pytest.approx(1.05)
    press("[")
    press("End")
    assert state(player, "player.time") == pytest.approx(SECONDS)
    assert state(player, "player.loop") == pytest.approx({"start": 1.05, "end": SECONDS})
    press("l")
    assert state(player, "player.loop") is None
    press("Home")
    for _ in range(2):
        press("+")
        press("Shift++")
    view = state(player, "player.view")
    assert view["end"] - view["start"] == pytest.approx(SECONDS / 4)
    assert view["high"] - view["low"] == pytest.approx(1 / 4)
    press("PageDown")
    press("ArrowUp")
    assert state(player, "player.view.start") == pytest.approx(SECONDS / 8)
    press("0")
    assert state(player, "player.view") == {"start": 0, "end": pytest.approx(SECONDS), "low": 0, "high": 1}
    before = player.evaluate("() => document.documentElement.dataset.melColours ?? null")
    press("c")
    assert player.evaluate("() => document.documentElement.dataset.melColours") != before
    press("n")
    player.keyboard.press("Shift+ArrowLeft")
    assert state(player, "player.regions")[0]["end"] == pytest.approx(SECONDS - 0.1)
    player.keyboard.press("Delete")
    assert state(player, "player.regions") == []


def test_click_seeks_drag_loops_and_the_brush_marks(player: Page) -> None:
    box = player.locator(".mel-surface").bounding_box()
    x, y = (lambda share: box["x"] + share * box["width"]), (lambda share: box["y"] + share * box["height"])
    player.mouse.click(x(0.25), y(0.5))
    assert state(player, "player.time") == pytest.approx(0.25 * SECONDS, abs=0.01)

    def drag(one: tuple[float, float], other: tuple[float, float]) -> None:
        player.mouse.move(x(one[0]), y(one[1]))
        player.mouse.down()
        player.mouse.move(x(other[0]), y(other[1]), steps=3)
        player.mouse.up()

    drag((0.6, 0.5), (0.4, 0.5))
    assert state(player, "player.loop") == pytest.approx({"start": 0.4 * SECONDS, "end": 0.6 * SECONDS}, abs=0.01)
    player.get_by_role("button", name="Brush").click()
    drag((0.1, 0.9), (0.3, 0.6))
    (region,) = state(player, "player.regions")
    assert (region["start"], region["end"]) == pytest.approx((0.1 * SECONDS, 0.3 * SECONDS), abs=0.01)
    edges = band_edges(MINI.n_mels, MINI.fmin, MINI.fmax, MINI.mel_scale)[1:-1]
    assert edges[int(0.1 * 128) - 2] < region["low"] < edges[int(0.1 * 128) + 1]
    assert edges[int(0.4 * 128) - 2] < region["high"] < edges[int(0.4 * 128) + 1]
    drag((0.2, 0.75), (0.3, 0.75))  # The region itself is dragged.
    assert state(player, "player.regions[0].start") == pytest.approx(0.2 * SECONDS, abs=0.02)
    player.get_by_role("button", name="Brush").click()


def test_the_wheel_zooms_with_control_and_else_leaves_the_page_alone(player: Page) -> None:
    player.locator(".mel-surface").hover()
    player.mouse.wheel(0, 100)
    assert state(player, "player.view.end") == pytest.approx(SECONDS)
    player.keyboard.down("Control")
    player.mouse.wheel(0, -400)
    player.keyboard.up("Control")
    player.wait_for_function("() => document.querySelector('mel-player').view.start > 0")
    assert not player.locator(".mel-overview").is_hidden()


@pytest.mark.slow
def test_ten_minutes_pan_at_fifty_pictures_a_second(browser: Browser) -> None:
    with opened(browser, viewport={"width": 1280, "height": 500}) as page:
        show_long_picture(page)
        between = between_pictures(page)
    assert float(np.median(between)) < 1000 / 50


def test_a_report_plays_from_a_file_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    levels = numpy_generator(0, "report").integers(0, 256, (128, 200, 1), dtype=np.uint8)
    sounds = [report.Sound(_wav(_sound(name)), encode_png(Spectrogram(levels, MINI)), name) for name in "ab"]
    written = report.Page("A report")
    written.section("Sounds", report.player(*sounds, caption="two sounds", seams=[(0.5, 1.0)]))
    written.write(tmp_path / "report.html")
    with opened(browser, color_scheme="dark") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url[:60]))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("mel-player[data-ready]")
        page.get_by_role("button", name="Play").click()
        page.wait_for_selector("mel-player[data-playing]")
        page.wait_for_function("() => document.querySelector('mel-player').time > 0.1")
        page.get_by_role("slider").press("x")
        assert page.get_by_role("button", name="b", exact=True).get_attribute("aria-pressed") == "true"
        assert page.locator(".mel-mark").is_visible()
    assert all(url.startswith(("file:", "data:")) for url in asked)

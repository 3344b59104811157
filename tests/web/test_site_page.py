"""The page of an exported site over an engine that stands in for the model: what a person sees and does."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect
from pydantic import JsonValue

from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.web import site_page
from tests.web.accessibility import problems
from tests.web.pages import ORIGIN, answer, opened, renderer_of

SPEC = PRESETS["mini"]
STAND_IN = Path(__file__).with_name("stand_in_engine.js")
WITHOUT_SERVICE_WORKER = "Object.defineProperty(Navigator.prototype, 'serviceWorker', { value: undefined })"
SERIOUS = ("serious", "critical")
MANIFEST: dict[str, JsonValue] = {
    "format": 1,
    "title": "mini",
    "made_with": "sdxl-mel",
    "spec": SPEC.model_dump(mode="json"),
    "anchor": "mel spectrogram",
    "command": {"base": "mini", "loras": ["mine.safetensors:0.8"]},
    "samplers": ["euler", "dpmpp_2m", "ddim"],
    "drawing": {"sampler": "dpmpp_2m", "steps": 10, "guidance": 2.5, "timesteps": None},
    "weights": "int8",
    "files": {"steps": {"drawing": {"sampler": "euler", "steps": 4, "guidance": 1.0, "timesteps": None}}},
    "lora": {"rank": 8},
    "preview": {"weights": [[0.1] * 3] * 4 + [[0.4] * 3], "spread": 1.0},
    "example": "folk tune, flute and guitar, fast",
}


def files() -> dict[str, bytes | str]:
    """Return the files of the page that are not the package's modules."""
    html = site_page.folder_page("mini", style="style.css", app="site/app.js", worker="site/worker.js")
    engine = STAND_IN.read_text(encoding="utf-8")
    return {
        "index.html": html,
        "style.css": site_page.style(),
        "site/engine.js": engine,
        "manifest.json": json.dumps(MANIFEST),
    }


def go(page: Page, hash_: str = "") -> None:
    """Open the page of a site."""
    page.add_init_script(WITHOUT_SERVICE_WORKER)
    answer(page, files())
    page.goto(f"{ORIGIN}/index.html{hash_}")
    page.wait_for_selector("body[data-ready]")


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[Page]:
    """A page that is used by one test after the other; it must fail nowhere, and ask nothing of another host."""
    with opened(
        browser, viewport={"width": 1300, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    ) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        go(page)
        yield page
    assert all(url.startswith((f"{ORIGIN}/", "data:", f"blob:{ORIGIN}/")) for url in asked)


@pytest.fixture
def page(shared: Page) -> Page:
    """The page without sounds, its form as it is at first."""
    shared.evaluate("""async () => {
      const request = indexedDB.open("sdxl-mel /");
      await new Promise((resolve) => (request.onsuccess = resolve));
      const transaction = request.result.transaction("sounds", "readwrite");
      transaction.objectStore("sounds").clear();
      await new Promise((resolve) => (transaction.oncomplete = resolve));
      request.result.close();
      localStorage.clear();
    }""")
    shared.reload()
    shared.wait_for_selector("body[data-ready]")
    return shared


def make(page: Page, **fields: object) -> None:
    """Fill fields of the form and ask for a sound."""
    for label, value in fields.items():
        page.get_by_label(label.capitalize(), exact=True).fill(str(value))
    page.get_by_role("button", name="Make music").click()


def cards(page: Page) -> Locator:
    """Return the cards of sounds that play."""
    return page.locator(".card:has(mel-player[data-ready])")


def test_a_sound_is_made_and_its_files_are_what_the_package_reads(page: Page, tmp_path: Path) -> None:
    make(page, prompt="harp & bells", seed=7)
    card = page.get_by_role("article", name="harp & bells, seed 7")
    expect(card.locator("mel-player[data-ready]")).to_be_visible()
    card.get_by_role("button", name="Download, copy or delete").click()
    saved = {}
    for name in ("Sound (WAV)", "Picture (PNG)"):
        with page.expect_download() as downloaded:
            card.get_by_role("link", name=name).click()
        saved[name] = Path(downloaded.value.path())
        assert downloaded.value.suggested_filename.startswith("harp-bells-7.")
    samples, rate = soundfile.read(BytesIO(saved["Sound (WAV)"].read_bytes()))
    assert (len(samples), rate) == (SPEC.width * SPEC.hop_length, SPEC.sample_rate)
    picture = tmp_path / "a.png"
    picture.write_bytes(saved["Picture (PNG)"].read_bytes())
    assert read_spectrogram(picture).spec == SPEC
    card.get_by_role("button", name="Copy the command").click()
    expect(page.locator(".notice")).to_contain_text("Copied")
    assert "--prompt 'harp & bells' --seed 7" in page.evaluate("() => navigator.clipboard.readText()")
    card.get_by_role("button", name="Play").click()
    expect(card.locator("mel-player[data-playing]")).to_be_visible()


def test_the_foot_of_the_page_says_what_computes(page: Page) -> None:
    expect(page.locator("footer")).to_contain_text("Computes with WebGPU, 3.0 times as fast here as WebAssembly.")


def test_the_anchor_stands_before_the_prompt(page: Page) -> None:
    assert page.locator(".prompt").inner_text().startswith("mel spectrogram,")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("folk tune, flute and guitar, fast")
    page.locator(".anchor").click()
    expect(prompt).to_be_focused()


def test_the_seed_changes_unless_it_is_locked(page: Page) -> None:
    seed = page.get_by_label("Seed", exact=True)
    make(page, steps=1)
    expect(seed).not_to_have_value("0")
    page.get_by_role("button", name="Keep this seed").click()
    seed.fill("5")
    make(page)
    expect(seed).to_have_value("5")
    page.get_by_role("button", name="Another seed").click()
    expect(seed).not_to_have_value("5")
    expect(cards(page)).to_have_count(2)


def test_the_picture_appears_step_by_step_and_cancel_takes_a_step(page: Page) -> None:
    make(page, steps=200)
    expect(page.get_by_role("img", name="The picture so far")).to_be_visible()
    expect(page.locator(".running .state")).to_contain_text(re.compile(r"step \d+ of 200 · \d+ s left"))
    start = time.monotonic()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".running")).to_have_count(0)
    assert time.monotonic() - start < 0.5
    make(page, steps=1)
    expect(cards(page)).to_have_count(1)


def test_a_long_sound_is_heard_before_all_of_it_is_made(page: Page) -> None:
    make(page, prompt="long", steps=1, seconds=30)
    page.get_by_role("button", name=re.compile(r"Listen: \d+ s are there")).click()
    expect(page.get_by_role("button", name=re.compile(r"Pause: \d+ s are there"))).to_be_visible()
    player = cards(page).locator("mel-player")
    expect(player).to_have_attribute("data-playing", "")
    assert player.evaluate("(player) => player.time") > 0


def test_sounds_wait_for_each_other_and_one_that_waits_is_cancelled(page: Page) -> None:
    make(page, steps=20, prompt="first")
    make(page, prompt="second")
    make(page, prompt="third")
    waiting = page.get_by_role("article", name="second")
    expect(waiting).to_contain_text("waits for its turn")
    waiting.get_by_role("button", name="Cancel").click()
    expect(cards(page)).to_have_count(2)
    assert [each.inner_text() for each in cards(page).locator("header h3").all()] == ["third", "first"]


def test_a_killed_tab_keeps_its_history(browser: Browser) -> None:
    context = browser.new_context()
    try:
        killed = context.new_page()
        go(killed)
        make(killed, prompt="kept", steps=2)
        expect(cards(killed)).to_have_count(1)
        make(killed, prompt="cut short", steps=200)
        expect(killed.get_by_role("img", name="The picture so far")).to_be_visible()
        os.kill(renderer_of(killed), signal.SIGKILL)
        page = context.new_page()
        go(page)
        expect(page.get_by_role("article", name="kept").locator("mel-player[data-ready]")).to_be_visible()
        cut = page.get_by_role("article", name="cut short")
        expect(cut).to_contain_text("not finished")
        cut.get_by_role("button", name="Remove").click()
        expect(cut).to_have_count(0)
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("cut short")
    finally:
        context.close()


def test_a_sound_is_starred_deleted_and_brought_back(page: Page) -> None:
    make(page, prompt="one", steps=1)
    make(page, prompt="two", steps=1)
    expect(cards(page)).to_have_count(2)
    one = page.get_by_role("article", name="one")
    star = one.get_by_role("button", name="Star", exact=True)
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.reload()
    page.get_by_role("button", name="Starred").click()
    expect(page.get_by_role("article")).to_have_count(1)
    one.get_by_role("button", name="Download, copy or delete").click()
    one.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Nothing is starred")).to_be_visible()
    page.get_by_role("button", name="Bring it back").click()
    page.reload()
    expect(cards(page)).to_have_count(2)
    expect(star).to_have_attribute("aria-pressed", "true")


def test_a_sound_is_varied_and_its_settings_are_used_again(page: Page) -> None:
    make(page, prompt="bells", steps=3, seed=4)
    expect(cards(page)).to_have_count(1)
    page.get_by_label("Prompt", exact=True).fill("drums")
    page.get_by_role("button", name="Vary").click()
    expect(cards(page)).to_have_count(2)
    expect(page.get_by_role("article", name="bells, seed")).to_have_count(2)
    page.get_by_role("button", name="Use settings").last.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("bells")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("4")


def test_a_link_opens_with_its_settings(page: Page, browser: Browser) -> None:
    page.get_by_label("Prompt", exact=True).fill("50 % harp & + bells")
    page.get_by_label("Seconds", exact=True).fill("12.5")
    page.get_by_label("Loop", exact=True).check()
    page.get_by_role("button", name="Copy a link").click()
    expect(page.locator(".notice")).to_contain_text("Copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert parse_qs(urlsplit(link).fragment)["prompt"] == ["50 % harp & + bells"]
    with opened(browser) as other:
        go(other, "#" + urlsplit(link).fragment)
        expect(other.get_by_label("Prompt", exact=True)).to_have_value("50 % harp & + bells")
        expect(other.get_by_label("Seconds", exact=True)).to_have_value("12.5")
        expect(other.get_by_label("Loop", exact=True)).to_be_checked()
        expect(other.get_by_label("Steps", exact=True)).to_have_value("10")


def test_few_steps_are_those_of_the_adapter(page: Page) -> None:
    page.get_by_label("Few steps").check()
    expect(page.get_by_label("Steps", exact=True)).to_have_value("4")
    page.get_by_label("Few steps").uncheck()
    expect(page.get_by_label("Steps", exact=True)).to_have_value("10")


def test_another_lora_is_drawn_with_and_named(page: Page) -> None:
    chooser = page.locator("input[type=file]")
    chooser.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"})
    expect(page.locator(".notice.error")).to_contain_text("notes.txt is no LoRA.")
    expect(page.locator(".lora-field")).to_contain_text("mine.safetensors:0.8")
    chooser.set_input_files({"name": "other.safetensors", "mimeType": "", "buffer": b"x"})
    page.get_by_role("slider", name="LoRA").fill("0.5")
    make(page, steps=1)
    expect(cards(page)).to_contain_text("other.safetensors at 0.5")


def test_what_is_missing_in_the_form_is_asked_for(page: Page) -> None:
    make(page, prompt="")
    assert page.evaluate("() => document.activeElement.tagName") == "TEXTAREA"
    make(page, prompt="harp", seconds=-3)
    assert page.evaluate("() => document.activeElement.validationMessage")
    expect(page.locator(".card")).to_have_count(0)


def test_everything_is_done_by_keys(page: Page) -> None:
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Tab")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    press("Control+a")
    page.keyboard.type("celesta")
    press("Control+Enter")
    card = page.get_by_role("article", name="celesta")
    expect(card.locator("mel-player[data-ready]")).to_be_visible()
    names = []
    for _ in range(24):
        press("Tab")
        names.append(page.evaluate("() => document.activeElement.ariaLabel ?? document.activeElement.innerText"))
    wanted = ["Make music", "Another seed", "Copy the command", "All", "Star", "Download, copy or delete", "Play"]
    assert [name for name in names if name in wanted] == wanted
    card.get_by_role("slider").press(" ")
    expect(card.locator("mel-player[data-playing]")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_nothing_serious_stands_in_the_way_of_anyone(browser: Browser, scheme: str, width: int) -> None:
    """Of colours and widths one pair each: colours do not follow from the width."""
    with opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        go(page)
        page.get_by_text("More settings").click()
        make(page, steps=1)
        expect(cards(page)).to_have_count(1)
        make(page, steps=200)
        expect(page.get_by_role("img", name="The picture so far")).to_be_visible()
        assert problems(page) == []
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in SERIOUS] == []


def test_a_model_that_does_not_open_is_said_and_tried_again(page: Page) -> None:
    page.evaluate("() => localStorage.setItem('refuse', '1')")
    page.reload()
    expect(page.locator(".loading")).to_contain_text("models/unet.onnx is damaged")
    make(page, prompt="harp")
    expect(page.get_by_role("article", name="harp")).to_contain_text("models/unet.onnx is damaged")
    page.evaluate("() => localStorage.removeItem('refuse')")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#worker")).to_have_text("ready")
    page.get_by_role("button", name="Make it again").click()
    expect(cards(page)).to_have_count(1)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [("WebAssembly", "does not run WebAssembly"), ("CompressionStream", "too old for this page"), ("indexedDB", "")],
)
def test_an_old_browser_is_told_what_it_lacks(browser: Browser, lost: str, sentence: str) -> None:
    with opened(browser) as page:
        page.add_init_script(f"Object.defineProperty(window, '{lost}', {{ value: undefined }})")
        page.add_init_script(WITHOUT_SERVICE_WORKER)
        answer(page, files())
        page.goto(f"{ORIGIN}/index.html")
        if sentence:
            expect(page.get_by_role("alert")).to_contain_text(sentence)
        else:
            expect(page.locator(".notice")).to_contain_text("stores nothing")
            make(page, steps=1)
            expect(cards(page)).to_have_count(1)


def test_a_browser_without_modules_shows_one_sentence(browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False, reduced_motion="reduce")  # Nothing is waited for.
    try:
        page = context.new_page()
        answer(page, files())
        page.goto(f"{ORIGIN}/index.html")
        expect(page.get_by_text("This page needs scripts and a browser of 2024")).to_be_visible()
    finally:
        context.close()


def test_the_policy_allows_nothing_of_other_hosts_and_no_script_in_the_page() -> None:
    html = site_page.folder_page('a <b> & "c"', style="style.css", app="app.js", worker="worker.js")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1]
    assert "http" not in policy[1]
    assert "<title>a &lt;b&gt; &amp; &quot;c&quot;" in html

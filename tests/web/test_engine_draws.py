"""The page's engine on an exported folder, in a browser, against the Generator on the base itself."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from sdxl_mel import web
from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.folder import hashed_name
from sdxl_mel.export.options import Weights
from sdxl_mel.export.site import export_folder
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.files.spectrogram import decode_png
from sdxl_mel.record import sha256_bytes, sha256_file
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length
from tests.exported import Site
from tests.web.pages import opened
from tests.web.static import hosted

FEW_LEVELS = 0.002
"""Share of levels that may differ by one: sums are rounded in another order."""
PROMPT = "slow (piano:1.3), soft"
OPEN = """async ([address, workers, more]) => {
  window.openEngine ??= (await import(`${address}web/site/engine.js`)).open;
  window.textOf = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return openEngine(`${address}folder/manifest.json`, { workers, ...more });
}"""
PAGE = """<!doctype html><link rel="icon" href="data:,">"""


@contextmanager
def engine_page(browser: Browser, folder: Path, **others: Path) -> Iterator[Page]:
    """Yield a page on which `engine` is open on an exported folder, and `again` (workers, more) opens another.

    `others` are folders of the same host.
    """
    with hosted(folder=folder, web=web.FOLDER, **others) as host, opened(browser) as page:
        page.route(f"{host.address}start.html", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        page.goto(f"{host.address}start.html")
        page.unroute(f"{host.address}start.html")
        page.evaluate(
            f"async (address) => {{ window.again = (workers, more) => ({OPEN})([address, workers, more]); }}",
            host.address,
        )
        page.evaluate("async () => { window.engine = await again(2); }")
        yield page


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host, at ../runtimes."""
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture(scope="module")
def page(browser: Browser, slim_site: Site, runtimes: Path) -> Iterator[Page]:
    with engine_page(browser, slim_site.folder, runtimes=runtimes) as page:
        yield page


DRAW = """async (settings) => {
  const picture = await (window.other ?? engine).draw(settings);
  return { ...picture, levels: textOf(picture.levels) };
}"""


def drawn(page: Page, **settings: Any) -> Levels:
    """Return the levels (n_mels, frames, channels) of a picture that the page draws."""
    picture = page.evaluate(DRAW, {"prompt": PROMPT, "seed": 3, "steps": 2, **settings})
    shape = (picture["channels"], picture["height"], picture["width"])
    return np.frombuffer(base64.b64decode(picture["levels"]), np.uint8).reshape(shape).transpose(1, 2, 0)


def expected(
    generator: Generator,
    seconds: float | None = None,
    *,
    loop: bool = False,
    sampling: Sampling | None = None,
    prompt: str = PROMPT,
) -> Levels:
    """Return the levels that the Generator draws of the same."""
    layout = lay_out(Length(seconds, loop), generator.spec)
    prompts = Prompts([PromptLine(prompt=prompt)], seed=3)
    jobs = plan_jobs(prompts, generator.fitting(long=True), layout.seconds(generator.spec), layout.long)
    (result,) = generator.draw(jobs, sampling or Sampling("dpmpp_2m", 2, 5.0), layout)
    return result.levels


def assert_same(found: Levels, wanted: Levels) -> None:
    assert found.shape == wanted.shape
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= FEW_LEVELS * wanted.size


@pytest.fixture(scope="module")
def generator(slim_site: Site) -> Generator:
    return Generator.open(str(slim_site.base), loras=[f"{slim_site.lora}:0.5"], device="cpu")


@pytest.mark.parametrize(("seconds", "loop"), [(None, False), (2.0, False), (6.0, False), (7.0, True)])
def test_pictures_are_the_generators(page: Page, generator: Generator, seconds: float | None, loop: bool) -> None:
    found = drawn(page, seconds=seconds, loop=loop, guidance=5, sampler="dpmpp_2m")
    assert_same(found, expected(generator, seconds, loop=loop))


@pytest.mark.parametrize("sampling", [Sampling("euler", 3, 1.0), Sampling("ddim", 2, 2.5)])
def test_samplers_and_no_guidance_are_the_generators(page: Page, generator: Generator, sampling: Sampling) -> None:
    found = drawn(page, steps=sampling.steps, guidance=sampling.guidance, sampler=sampling.sampler)
    assert_same(found, expected(generator, sampling=sampling))


def test_a_prompt_of_several_chunks_draws_the_generators_picture(page: Page, generator: Generator) -> None:
    prompt = ", ".join(f"instrument number {number}" for number in range(40)) + ", (banjo:1.5)"
    assert_same(drawn(page, prompt=prompt, guidance=5), expected(generator, prompt=prompt))


def test_one_worker_draws_what_two_draw(page: Page) -> None:
    two = drawn(page)
    page.evaluate("async () => { window.other = await again(1); }")
    assert_same(drawn(page), two)
    page.evaluate("() => { other.close(); delete window.other; }")


def recorded(page: Page) -> Any:
    """Return the record of a picture that the page draws."""
    return page.evaluate("async () => (await engine.draw({ prompt: 'piano', steps: 1 })).record")


def test_a_lora_is_scaled_exchanged_and_taken_off(page: Page, slim_site: Site) -> None:
    with_it = drawn(page)
    without = drawn(page, loraScale=0)
    assert not np.array_equal(with_it, without)
    file = base64.b64encode(slim_site.lora.read_bytes()).decode()
    set_lora = "async (file) => engine.setLora(file && await (await fetch(`data:;base64,${file}`)).blob())"
    page.evaluate(set_lora, file)
    assert_same(drawn(page, loraScale=0.5), with_it)
    page.evaluate(set_lora, None)
    assert_same(drawn(page), without)
    assert recorded(page)["settings"]["lora"] is None
    page.evaluate(set_lora.replace("blob()", "blob().then((content) => new File([content], 'mine.safetensors'))"), file)
    record = recorded(page)
    assert (record["settings"]["lora"], record["inputs"]["lora"]) == ("mine.safetensors", sha256_file(slim_site.lora))
    refused = page.evaluate("async () => engine.setLora(new Blob(['no'])).catch((error) => error.message)")
    assert "safetensors" in refused


def test_a_short_loop_is_a_circle(page: Page) -> None:
    """It is drawn from two sides, so no place of it is a border: rolled noise would make the rolled picture."""
    levels = drawn(page, seconds=2.1, loop=True)
    assert levels.shape == (128, 128, 1)


CANCEL = """async () => {
  const [abort, seen] = [new AbortController(), []];
  const onStep = ({ number, total, latents, rows, columns }) => {
    seen.push([number, total, latents.length, rows, columns]);
    if (number === 2) abort.abort();
  };
  const name = await engine.draw({ prompt: "piano", steps: 50, signal: abort.signal, onStep }).catch((e) => e.name);
  return [name, seen];
}"""


def test_a_drawing_stops_within_a_step(page: Page) -> None:
    assert page.evaluate(CANCEL) == ["AbortError", [[1, 50, 2048, 16, 32], [2, 50, 2048, 16, 32]]]


FILES = """async () => {
  const picture = await engine.draw({ prompt: "naïve piano", seed: 1, steps: 2 });
  const sound = await engine.sound(picture, { method: "fast" });
  const stop = new AbortController();
  const stopped = engine.sound(picture, { method: "best", signal: stop.signal }).catch((error) => error.name);
  setTimeout(() => stop.abort(), 30);
  return [textOf(await engine.png(picture)), textOf(engine.wav(sound)), sound.channels.length, await stopped];
}"""


def test_a_picture_and_its_sound_become_files(page: Page, generator: Generator) -> None:
    png, wav, channels, stopped = page.evaluate(FILES)
    read = decode_png(base64.b64decode(png), "the page's picture")
    assert read.spec == generator.spec
    assert read.record is not None
    assert read.record.settings["texts"] == [[0, "mel spectrogram, naïve piano"]]
    content = base64.b64decode(wav)
    assert (content[:4], channels, stopped) == (b"RIFF", 1, "AbortError")
    assert content.count(b"melspec") == 1


def test_what_loads_files_ends_with_it(page: Page) -> None:
    """What it leaves behind, as much as the models again, goes with it."""
    page.evaluate("async () => { window.other = await again(1); }")
    page.wait_for_timeout(300)  # That a worker ended is told later.
    assert len(page.workers) == 2 + 1
    page.evaluate("() => { other.close(); delete window.other; }")


def test_a_damaged_part_is_named(page: Page) -> None:
    page.route("**/models/decoder*", lambda route: route.fulfill(body=b"other"))
    said = "async () => again(1).catch((error) => [error.message, error.paths])"
    message, paths = page.evaluate(said)
    page.unroute("**/models/decoder*")
    assert "is damaged" in message
    assert all(path.startswith("models/decoder") for path in paths)


STAND_IN = """
export const env = { wasm: {} };
export class Tensor {}
export const InferenceSession = { create: async () => ({ run: async () => NUMBERS, release() {} }) };"""
WRONG = (
    "({ noise: { data: new Float32Array(2048) }, values: { data: new Float32Array(32768), dims: [1, 1, 128, 256] } })"
)
GPU = "Object.defineProperty(navigator, 'gpu', { configurable: true, value: { requestAdapter: async () => ADAPTER } })"
TRY = """async ([manifest, gpu]) => {
  Function(gpu)();
  const onDevice = Promise.withResolvers();
  const engine = await again(1, { manifest, onDevice: onDevice.resolve });
  const late = new Promise((resolve) => setTimeout(resolve, 20000, "nothing"));
  const said = await Promise.race([onDevice.promise, late]);
  delete navigator.gpu;
  const { levels } = await engine.draw({ prompt: "piano", steps: 1 });
  engine.close();
  return [said, textOf(levels)];
}"""

USUAL = """async () => {
  const engine = await again(1);
  const { levels } = await engine.draw({ prompt: "piano", steps: 1 });
  engine.close();
  return textOf(levels);
}"""


@pytest.mark.parametrize(
    ("adapter", "numbers", "words"),
    [
        ("null", WRONG, "WebAssembly: this browser has no WebGPU on this device"),
        ("({})", WRONG, "WebAssembly: WebGPU finds other numbers here"),
        ("({})", "(await Promise.reject(new Error('lost')))", "WebAssembly: WebGPU does not work here (lost)"),
    ],
    ids=["none", "wrong", "fails"],
)
def test_without_a_webgpu_that_works_webassembly_draws(
    page: Page, slim_site: Site, runtimes: Path, adapter: str, numbers: str, words: str
) -> None:
    manifest = json.loads((slim_site.folder / "manifest.json").read_text())
    manifest["files"]["webgpu"] = {}
    for key, name, content in (
        ("ort", "ort.mjs", STAND_IN.replace("NUMBERS", numbers)),
        ("wasm", "none.wasm", "\0asm\1\0\0\0"),
    ):
        hashed = hashed_name(name, content.encode())
        (runtimes / hashed).write_text(content)
        path, size, digest = f"../runtimes/{hashed}", len(content), sha256_bytes(content.encode())
        manifest["files"]["webgpu"][key] = {"path": path, "parts": [path], "bytes": size, "sha256": digest}
    said, levels = page.evaluate(TRY, [manifest, GPU.replace("ADAPTER", adapter)])
    assert said == words
    # Not by `engine`: other tests have changed its LoRA.
    assert levels == page.evaluate(USUAL)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "most"), [("fp16", 1e-5), ("int8", 0.004)])
def test_mini_draws_what_python_draws(
    browser: Browser,
    tmp_path: Path,
    weights: Weights,
    most: float,
) -> None:
    export_folder(Chosen("mini", weights=weights), tmp_path / "site", 1 << 40, page=True)
    generator = Generator.open("mini", device="cpu")
    with engine_page(browser, tmp_path / "site") as page:
        for settings, sampling in (({}, Sampling("dpmpp_2m", 10, 2.5)), ({"seconds": 9.0}, Sampling("euler", 6, 2.5))):
            asked = {"sampler": sampling.sampler, "steps": sampling.steps, "guidance": sampling.guidance}
            found = drawn(page, **asked, **settings).astype(float)
            wanted = expected(generator, settings.get("seconds"), sampling=sampling)
            differs = np.abs(found - wanted)
            if weights == "fp16":
                # Levels are whole: sums in another order move a few of them by one.
                assert np.count_nonzero(differs) <= 0.001 * wanted.size
                assert differs.max() <= 1
            assert np.sqrt(np.mean((differs / 255) ** 2)) <= max(most, np.sqrt(0.001) / 255)

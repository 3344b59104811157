"""The exported page of mini in Chromium, beside Python: bytes, seconds, memory, and the same picture."""

import base64
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from bench.table import Table
from sdxl_mel import web
from sdxl_mel.arrays import Levels
from sdxl_mel.assets import step_adapter
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.export.manifest import Drawn, Manifest, read_manifest
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.stages import export
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from tests.web.pages import renderer_of
from tests.web.static import Host, hosted

PROMPT, SEED = "violin ballad with soft piano", 1
ROUNDS = 5
TILES = 20
LONG_SECONDS = 60
VISITS = 4
KEPT_SECONDS = 5
OPEN = """async ([address, prompt, seed]) => {
  const { open } = await import(`${address}web/site/engine.js`);
  window.engine = await open(`${address}site/manifest.json`, { worker: `${address}web/site/worker.js` });
  window.tile = async ({ method = "fast", ...more } = {}) => {
    const start = performance.now();
    const drawn = await engine.draw({ prompt, seed, ...more });
    const between = performance.now();
    window.drawn = drawn;
    await engine.sound(drawn, { method });
    return [between - start, performance.now() - between].map((milliseconds) => milliseconds / 1000);
  };
  await tile();
}"""
LEVELS = """() => {
  let text = "";
  const { levels } = drawn;
  for (let at = 0; at < levels.length; at += 8192) text += String.fromCharCode(...levels.subarray(at, at + 8192));
  return btoa(text);
}"""


def run(base: str = "mini") -> Table:
    """Measure all rows on one base, which carries a step adapter and a small decoder."""
    adapter = step_adapter(base)
    assert adapter is not None
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = Path(folder) / "site"
        export.run(export.Config(base=base, out=site, step_lora=str(adapter)))
        manifest = read_manifest(site)
        steps = manifest.files.steps
        assert steps is not None
        with hosted(site=site, web=web.FOLDER) as host:
            python = Python(base, manifest.drawing)
            rows = [
                *bytes_of(site, manifest),
                *opening(playwright, host),
                *drawing(playwright, host, python),
                *few_steps(playwright, host, Python(base, steps.drawing, adapter)),
                *one_core(playwright, host, python, Path(folder)),
            ]
    drawn = manifest.drawing
    return Table(
        title="browser: the exported page beside Python",
        header=["what", "page", "Python", "ratio"],
        rows=rows,
        notes=[
            f"Base {base}, weights in {manifest.weights}; {drawn.steps} steps of {drawn.sampler} at guidance "
            f"{drawn.guidance:g}; Chromium without a window; the fastest of {ROUNDS} rounds in turn.",
            "A tile: prompt to picture to sound by `fast`. Python: a Generator that is open, on as many threads.",
            f"Few steps: {steps.drawing.steps} without guidance, by the step adapter of the base; in the page "
            "with its small decoder, in Python with the VAE's.",
            "Opening: from the address to a page that is ready, from a host on the same machine; warm: a later visit, "
            "from what the service worker and the browser have kept of the first, in which a sound was made.",
            "Memory: the resident set of the process that shows the page, its workers included, and what playwright's "
            "inspector keeps there of files that have come.",
        ],
    )


class Python:
    """The same tile by the package, drawn as an export is, with a step adapter or without."""

    def __init__(self, base: str, drawn: Drawn, adapter: Path | None = None) -> None:
        self.generator = Generator.open(base, loras=[adapter] if adapter else [])
        timesteps: Any = drawn.timesteps
        asked = Drawing(drawn.sampler, drawn.steps, drawn.guidance, timesteps)
        self.sampling = self.generator.settle(asked).sampling

    def draw(self, prompt: str = PROMPT, seed: int = SEED) -> Levels:
        """Return the picture, its prompt read anew."""
        self.generator.texts.clear()
        prompts = Prompts([PromptLine(prompt=prompt)], 1, seed)
        jobs = plan_jobs(prompts, self.generator.fitting(), self.generator.spec.tile_seconds, long=False)
        (result,) = self.generator.draw(jobs, self.sampling)
        return result.levels

    def sound(self, levels: Levels) -> None:
        """Make the sound of a picture."""
        invert(levels, self.generator.spec, "fast")


def bytes_of(site: Path, manifest: Manifest) -> list[list[str]]:
    """Return the rows of what is downloaded, without the UNet of a step adapter and the runtime of other browsers."""
    steps, runtime = manifest.files.steps, manifest.files.runtime
    assert runtime is not None
    unloaded = [manifest.vectors, *(steps.unet.all_files() if steps else ()), runtime["wasm"]]
    left_out = {part for file in unloaded for part in file.parts}
    files = [path for path in site.rglob("*") if path.is_file() and path.relative_to(site).as_posix() not in left_out]
    models = sum(path.stat().st_size for path in files if path.parent.name in ("models", "tokens"))
    whole = sum(path.stat().st_size for path in files)
    return [
        ["models and vocabulary, MB", f"{models / 1e6:.1f}", "", ""],
        ["the same with page and runtime, MB", f"{whole / 1e6:.1f}", "", ""],
    ]


def opening(playwright: Playwright, host: Host) -> list[list[str]]:
    """Return the rows of the first and of later openings of the page by a browser with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        seconds = []
        for visit in range(VISITS):
            page = context.new_page()
            start = time.perf_counter()
            page.goto(f"{host.address}site/")
            page.wait_for_function("() => document.querySelector('#worker').dataset.state === 'ready'", timeout=120_000)
            seconds.append(time.perf_counter() - start)
            if visit == 0:
                make(page)
            page.close()
        context.close()
    return [
        ["first opening, seconds", f"{seconds[0]:.2f}", "", ""],
        ["warm opening, seconds", f"{min(seconds[1:]):.2f}", "", ""],
    ]


def make(page: Page) -> None:
    """Make a sound in the page, and stay until the browser has kept what it has compiled."""
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("button", name="Make music").click()
    page.wait_for_selector("mel-player[data-ready]", timeout=120_000)
    page.wait_for_timeout(1000 * KEPT_SECONDS)


def drawing(playwright: Playwright, host: Host, python: Python) -> list[list[str]]:
    """Return the rows of tiles on all cores, of memory, and of a long piece."""
    with chromium(playwright) as browser:
        page, process = opened(browser, host)
        rows = timed("all cores", page, python, torch.get_num_threads())
        levels = np.frombuffer(base64.b64decode(page.evaluate(LEVELS)), np.uint8)
        height, width = python.generator.spec.n_mels, python.generator.spec.width
        difference = (levels.reshape(-1, height, width)[0] / 255 - python.draw()[..., 0] / 255) ** 2
        rows.append(["the same picture: RMSE of the values", f"{np.sqrt(difference.mean()):.5f}", "0", ""])
        few = memory_after(page, process, 3)
        many = memory_after(page, process, TILES - 3)
        peak = status(process, "VmHWM")
        rows.append([f"renderer after 3 and {TILES} tiles, peak, MB", f"{few:.0f}, {many:.0f}, {peak:.0f}", "", ""])
    with chromium(playwright) as browser:
        page, process = opened(browser, host)
        seconds = sum(page.evaluate(f"() => tile({{ seconds: {LONG_SECONDS} }})"))
        peak = status(process, "VmHWM")
    rows.append([f"a piece of {LONG_SECONDS} s with its sound, seconds", f"{seconds:.1f}", "", ""])
    rows.append(["renderer at its peak meanwhile, MB", f"{peak:.0f}", "", ""])
    return rows


def few_steps(playwright: Playwright, host: Host, python: Python) -> list[list[str]]:
    """Return the row of a tile by the step adapter and the small decoder."""
    with chromium(playwright) as browser:
        page, _ = opened(browser, host)
        page.evaluate("() => tile({ quick: true })")
        return timed("few steps, all cores", page, python, torch.get_num_threads(), "{ quick: true }")[:1]


def one_core(playwright: Playwright, host: Host, python: Python, folder: Path) -> list[list[str]]:
    """Return the rows of tiles where browser and Python have one core."""
    program = folder / "chromium-on-one-core"
    program.write_text(f'#!/bin/sh\nexec taskset -c 0 {shutil.which("chromium")} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with chromium(playwright, program) as browser:
        page, _ = opened(browser, host)
        return timed("one core", page, python, 1)


def timed(where: str, page: Page, python: Python, threads: int, settings: str = "") -> list[list[str]]:
    """Return the rows of a tile, and of its sound alone, in the page and in Python in turn."""
    page_seconds, python_seconds = [], []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    levels = python.draw()
    for _ in range(ROUNDS):
        page_seconds.append(page.evaluate(f"() => tile({settings})"))
        python_seconds.append((_seconds(python.draw), _seconds(lambda: python.sound(levels))))
    torch.set_num_threads(before)
    best = {"tile": (min(map(sum, page_seconds)), min(map(sum, python_seconds)))}
    best["sound alone"] = (min(each for _, each in page_seconds), min(each for _, each in python_seconds))
    return [
        [f"{what}, {where}, seconds", f"{ours:.2f}", f"{other:.2f}", f"{ours / other:.2f}"]
        for what, (ours, other) in best.items()
    ]


@contextmanager
def chromium(playwright: Playwright, program: Path | None = None) -> Iterator[Browser]:
    """Yield a browser of its own."""
    browser = playwright.chromium.launch(
        executable_path=str(program or shutil.which("chromium")), args=["--no-sandbox"]
    )
    try:
        yield browser
    finally:
        browser.close()


def opened(browser: Browser, host: Host) -> tuple[Page, int]:
    """Return a page in which the engine is open and has drawn a tile, and the process that shows it."""
    page = browser.new_page()
    page.goto(f"{host.address}site/manifest.json")
    page.evaluate(OPEN, [host.address, PROMPT, SEED])
    return page, renderer_of(page)


def memory_after(page: Page, process: int, tiles: int) -> float:
    """Return what is resident after so many more tiles, in MB."""
    for _ in range(tiles):
        page.evaluate("() => tile()")
    return status(process, "VmRSS")


def status(process: int, key: str) -> float:
    """Return a size from what the kernel says of a process, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:"))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

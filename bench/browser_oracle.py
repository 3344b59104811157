"""The oracle on the exported page of mini, as it draws by itself, beside 25 guided steps in Python: minutes."""

import base64
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from bench.browser import LEVELS, chromium, opened
from bench.table import Table
from sdxl_mel import web
from sdxl_mel.arrays import Levels
from sdxl_mel.corpus.tracks import plan_tracks
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.metrics.intervals import paired_interval, share_interval
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.stages import export
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from tests.web.static import hosted

PROMPTS = 200
PLANNED = 400
STEPS = 25
DRAW = "async (asked) => { window.drawn = await engine.draw(asked); }"


def run() -> Table:
    """Draw the duets of test pieces twice, and compare what is found in them."""
    plans = [plan for plan in plan_tracks("test-seen", PLANNED) if len(plan.instruments) == 2][:PROMPTS]
    prompts, wanted = [plan.captions[0] for plan in plans], [plan.instruments for plan in plans]
    with tempfile.TemporaryDirectory() as folder:
        export.run(export.Config(base="mini", out=Path(folder) / "site"))
        drawn = {"page": in_the_page(Path(folder) / "site", prompts), "Python": in_python(prompts)}
    oracle = load_oracle()
    found = {name: [all(flags) for flags in oracle.found(np.stack(tiles), wanted)] for name, tiles in drawn.items()}
    shares = {name: share_interval(flags) for name, flags in found.items()}
    change = paired_interval(*(np.asarray(found[name], np.float64) for name in ("Python", "page")))
    shown = [f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in (*shares.values(), change)]
    return Table(
        title="browser: the oracle at the page's defaults",
        header=["what", "page", f"Python, {STEPS} guided steps", "page - Python, paired"],
        rows=[[f"both instruments found, {len(plans)} prompts", *shown]],
        notes=["Duets of test pieces whose pairs mini has seen, a seed each; weights as they are exported by default."],
    )


def in_the_page(site: Path, prompts: list[str]) -> list[Levels]:
    """Return a tile of every prompt, seed = its place, as an exported page of mini draws it."""
    with sync_playwright() as playwright, hosted(site=site, web=web.FOLDER) as host, chromium(playwright) as browser:
        page, _ = opened(browser, host)
        tiles = []
        for seed, prompt in enumerate(prompts):
            page.evaluate(DRAW, {"prompt": prompt, "seed": seed})
            tiles.append(np.frombuffer(base64.b64decode(page.evaluate(LEVELS)), np.uint8).reshape(128, -1))
    return tiles


def in_python(prompts: list[str]) -> list[Levels]:
    """Return the same by the package, in more steps of its own sampler."""
    generator = Generator.open("mini")
    sampling = generator.settle(Drawing("euler", STEPS)).sampling
    lines = Prompts([PromptLine(prompt=prompt, seed=seed) for seed, prompt in enumerate(prompts)])
    jobs = plan_jobs(lines, generator.fitting(), generator.spec.tile_seconds, long=False)
    return [result.levels[..., 0] for result in generator.draw(jobs, sampling)]

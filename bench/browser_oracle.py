"""The oracle on the exported page of mini, as it draws by itself, beside 25 guided steps in Python: minutes.

Prompts, noise and the tiles of Python are those of `python -m bench distill`, and tiles of the page are kept beside
them, block by block, under a hash of what drew them: a table that was interrupted goes on.
"""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from bench.browser import LEVELS, chromium, opened
from bench.distill import TEACHER, judged, told
from bench.drawn_tiles import BLOCK, Tiles, TileStore, seed_of
from bench.table import Table
from sdxl_mel import web
from sdxl_mel.export.manifest import Manifest, read_manifest
from sdxl_mel.metrics.intervals import paired_interval, share_interval
from sdxl_mel.stages import export
from tests.web.static import hosted

PROMPTS = 200
"""Half of them name pairs of instruments that mini has seen, half held-out ones."""
DRAW = "async ([prompt, seed]) => { window.drawn = await engine.draw({ prompt, seed: BigInt(seed) }); }"


def run() -> Table:
    """Draw the duets of test pieces twice, and compare what is found in them."""
    store = judged(PROMPTS // 2)
    with tempfile.TemporaryDirectory() as folder:
        export.run(export.Config(base="mini", out=Path(folder) / "site"))
        page = store.right_in(in_the_page(Path(folder) / "site", store))
    python = store.right(TEACHER)
    shares = [share_interval(right) for right in (page, python)]
    return Table(
        title="browser: the oracle at the page's defaults",
        header=["what", "page", TEACHER.name, "page less teacher, paired"],
        rows=[
            [
                f"both instruments found, {PROMPTS} prompts",
                *(f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})" for share in shares),
                told(paired_interval(python, page)),
            ]
        ],
        notes=[
            "Duets of held-out pieces, half of their pairs seen by mini and half held out, the same noise for both; "
            "the page with weights as they are exported by default, the teacher in float32.",
        ],
    )


def in_the_page(site: Path, store: TileStore) -> Tiles:
    """Return a tile of every prompt, as an exported page of mini draws it."""
    key, blocks = key_of(read_manifest(site)), []
    with sync_playwright() as playwright, hosted(site=site, web=web.FOLDER) as host, chromium(playwright) as browser:
        page, _ = opened(browser, host)
        for group, first in store.prompts.blocks:
            plans = store.prompts.groups[group][first : first + BLOCK]
            asked = [(plan.captions[0], seed_of(group, index)) for index, plan in enumerate(plans, first)]
            blocks.append(store.kept.array(f"{key}-{group}-{first:03d}", partial(drawn, page, asked)))
    return np.concatenate(blocks)


def drawn(page: Page, asked: Sequence[tuple[str, int]]) -> Tiles:
    """Return a tile for every prompt and seed, as the engine draws it by itself."""
    tiles = []
    for prompt, seed in asked:
        page.evaluate(DRAW, [prompt, str(seed)])
        tiles.append(np.frombuffer(base64.b64decode(page.evaluate(LEVELS)), np.uint8).reshape(128, -1))
    return np.stack(tiles)


def key_of(manifest: Manifest) -> str:
    """Return a hash of what an export holds, and of how it is drawn."""
    asked = [manifest.drawing.model_dump_json(), *(file.sha256 for file in manifest.all_files())]
    return f"page-{hashlib.sha256(' '.join(asked).encode()).hexdigest()[:16]}"

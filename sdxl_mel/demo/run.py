"""The demo from its first command to its report."""

import json
from pathlib import Path

from sdxl_mel.captions.anchor import remove_anchor
from sdxl_mel.corpus.tracks import plan_tracks, render_track
from sdxl_mel.demo.findings import Findings
from sdxl_mel.demo.page import write_page
from sdxl_mel.demo.plan import LINES, PREPARE, Size, place, quick_dtype, step_of
from sdxl_mel.demo.steps import config_path, run_steps
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.dataset import Item, read_dataset
from sdxl_mel.options import DEFAULT_ANCHOR

SONG = "instrumental, banjo and harmonica, fast, major key, folk tune"
EXAMPLE_SECONDS = 12.0


def run_demo(folder: Path, minutes: float, seed: int, known: int | None = None) -> tuple[Path, Findings]:
    """Run every step that is not done yet in `folder`; return the report that was written, and what was found.

    `known` is the number of prompts for instruments that the base knows, in place of that of the minutes.
    """
    size = Size.of(minutes)
    values = {
        "seed": str(seed),
        "tracks": str(size.tracks),
        "steps": str(size.steps),
        "anchor": DEFAULT_ANCHOR,
        "song": SONG,
        "dtype": quick_dtype(),
        "config": str(config_path("mini")),
    }
    count = 1 + len(LINES)
    done = list(run_steps([step_of(PREPARE, folder, values)], folder, first=1, count=count))
    write_inputs(folder, known or size.known, seed)
    done += run_steps([step_of(line, folder, values) for line in LINES], folder, first=2, count=count)
    findings = Findings.read(folder)
    page = folder / "report.html"
    write_page(page, folder, done, findings)
    return page, findings


def write_inputs(folder: Path, known: int, seed: int) -> None:
    """Write both lists of prompts, and one rendered sound for the fidelity ladder; the same every time.

    Raises InputError where the folder has other prompts.
    """
    dataset = read_dataset(place(folder, "dataset"))
    first: dict[str, Item] = {}
    for item in dataset.splits["test"]:
        first.setdefault(item.track, item)
    new = [remove_anchor(item.captions[0], dataset.anchor) for item in first.values()]
    _write_prompts(place(folder, "new"), new, seed)
    _write_prompts(place(folder, "known"), known_prompts(known, seed), seed)
    if not place(folder, "example").exists():
        write_audio(place(folder, "example"), *render_track(plan_tracks("test-seen", 1, EXAMPLE_SECONDS, seed=seed)[0]))


def known_prompts(count: int, seed: int) -> list[str]:
    """Return captions of held-out pieces for instruments that the base knows, half of them in unheard pairs."""
    seen = plan_tracks("test-seen", count - count // 2, seed=seed)
    unseen = plan_tracks("test-unseen", count // 2, seed=seed)
    return [plan.captions[0] for plan in [*seen, *unseen]]


def _write_prompts(path: Path, prompts: list[str], seed: int) -> None:
    rows = [{"prompt": prompt, "seed": seed + index} for index, prompt in enumerate(prompts)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InputError(
            f"{path}: this folder holds a demo of other prompts ({len(path.read_text(encoding='utf-8').splitlines())} "
            f"in place of {len(prompts)}); choose another --out, or delete the folder"
        )
    write_text(path, text)

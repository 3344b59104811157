"""The whole job at SDXL's true size on the machine at hand: every public command from music to scores.

The base is an SDXL 1.0 of random numbers, so nothing is downloaded: memory, time and files do not depend on what
weights say. A step that is finished is found finished when the command is given again. `--size tiny` walks the same
way with an SDXL of a hundredth of the width. On a machine with a CUDA device the commands use it.
"""

import argparse
import shutil
from pathlib import Path
from typing import Literal

from bench.table import Table
from bench.true_size.walk import RESULTS, Measured, checks, steps_of, walk
from sdxl_mel.errors import ResourceError

NEEDED_GB = {"sdxl": 24, "tiny": 1}
FOLDER = Path("runs/true-size")
SizeName = Literal["sdxl", "tiny"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--size", choices=("sdxl", "tiny"), default="sdxl", help="SDXL 1.0, or one a hundredth as wide")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything lies, a folder a size")


def run(size: SizeName = "sdxl", folder: Path = FOLDER) -> Table:
    """Walk what is not done yet; return a row a step."""
    place = folder / size
    free = shutil.disk_usage(folder.absolute().anchor).free / 1e9
    if not place.exists() and free < NEEDED_GB[size]:
        raise ResourceError(
            f"{place}: found {free:.0f} GB free; {NEEDED_GB[size]} are needed, or give another --folder"
        )
    done = list(walk(steps_of(size, place), place))
    notes = [
        "Every step is a process of its own. Peak: its largest resident set; at its end: that of its last half second.",
        *(f"{name}: {said}" for name, said in checks(place).items()),
        f"{place / RESULTS} keep what was measured; delete {place} for another walk.",
    ]
    rows = [[step.why, *_told(measured), step.command] for step, measured in done]
    seconds, peak = sum(each.seconds for _, each in done), max(each.peak for _, each in done)
    rows.append(
        ["all", f"{seconds:.0f}", f"{peak / 1e9:.2f}", "", f"{sum(each.written for _, each in done) / 1e9:.2f}", ""]
    )
    return Table(
        f"true-size: the whole job, {size}",
        ["what", "seconds", "peak GB", "at its end", "GB written", "by"],
        rows,
        notes,
    )


def _told(measured: Measured) -> list[str]:
    sizes = (measured.peak, measured.last, measured.written)
    return [f"{measured.seconds:.1f}", *(f"{size / 1e9:.2f}" for size in sizes)]

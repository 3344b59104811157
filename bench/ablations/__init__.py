"""What each setting of the training does, on mini: the original's table answered, and our own additions.

Every run trains a LoRA on the demo's corpus, draws with it and measures its tiles; its numbers are one file of
`results/`, so that `python -m bench ablations` goes on where it was stopped. The baseline and the noise floor come
first, then the original's rows, then ours.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.ablations.page import table, write_page
from bench.ablations.results import finished, missing, write_result
from bench.ablations.rows import ROWS, Row
from bench.table import Table
from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss

SEEDS = 3
FOLDER = Path("runs/ablations")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--rows", nargs="+", default=(), help="rows to make, in this order; none = all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each row, from seed 0 on")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where corpus and caches lie, or will")


def run(rows: Sequence[str] = (), seeds: int = SEEDS, minutes: float = float("inf"), folder: Path = FOLDER) -> Table:
    """Make the runs that are missing, row by row, and write the table into docs/training.md."""
    for name in rows:
        if name not in ROWS:
            raise InputError(f"--rows: found {name!r}{near_miss(name, ROWS)}; known: {', '.join(ROWS)}")
    if wanted := list(missing([ROWS[name] for name in rows or ROWS], range(seeds))):
        make(wanted, minutes, folder)
    made = table(finished(ROWS.values()))
    write_page(made)
    return made


def make(wanted: Iterable[tuple[Row, int]], minutes: float, folder: Path) -> None:
    """Make runs in one process: the models of the judge stay open, the corpus and its caches are shared."""
    # Imported here, so that the table of what is finished needs no torch.
    from bench.ablations.judge import Judge
    from bench.ablations.runs import Workplace, carry_out

    started, place = time.monotonic(), Workplace(folder)
    judge = Judge(place.dataset, folder)
    for row, seed in wanted:
        if time.monotonic() - started > 60 * minutes:
            return
        measured = carry_out(row, seed, place, judge)
        write_result(row, seed, measured)
        print(f"{row.name}, seed {seed}: {measured}", file=sys.stderr, flush=True)

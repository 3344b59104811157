"""Effects of rows against the baseline: a randomised block design, in which a seed is a block.

A run's number is taken as a row's part plus a seed's part plus an error whose size is the same in all rows (Montgomery,
Design and Analysis of Experiments, chapter 4; with runs missing, its least-squares form). Seeds thereby pair the rows,
and a handful of seeds suffices, because all rows together say how large the error is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sdxl_mel.metrics.intervals import Interval, student

Runs = Mapping[tuple[str, int], float]
"""A number of each run, by row and seed."""


@dataclass(frozen=True)
class Effects:
    """The difference of each row to the baseline, with 95 % intervals; `error` is the spread of one run."""

    of: Mapping[str, Interval]
    error: float | None


def effects(runs: Runs, baseline: str) -> Effects:
    """Return the effect of every row that shares a seed with the baseline.

    Without repetition, where every run has a part of its own, the intervals have no bounds.
    """
    seeds = sorted({seed for row, seed in runs if row == baseline})
    paired = {key: value for key, value in runs.items() if key[1] in seeds}
    rows = sorted({row for row, _ in paired} - {baseline})
    if not rows:
        return Effects({}, None)
    design = np.array(
        [[*(row == each for each in rows), *(seed == each for each in seeds)] for row, seed in paired], float
    )
    values = np.array(list(paired.values()))
    parts, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(values) - int(rank)
    if freedom < 1:
        return Effects({row: Interval(float(parts[i]), None, None, None, "") for i, row in enumerate(rows)}, None)
    variance = float(np.square(values - design @ parts).sum()) / freedom
    spreads = np.sqrt(variance * np.diag(np.linalg.pinv(design.T @ design)))
    method = f"least squares over rows and seeds, t with {freedom} degrees of freedom"
    found = {row: student(float(parts[i]), float(spreads[i]), freedom, method) for i, row in enumerate(rows)}
    return Effects(found, float(np.sqrt(variance)))

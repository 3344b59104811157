"""Differences of metrics between two evaluations, with intervals: paired by prompt where both have the same prompts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

from sdxl_mel.files.evaluation import Evaluation, Metric
from sdxl_mel.metrics.intervals import LEVEL, Interval, paired_interval

FEWEST_PAIRS = 3

Verdict = Literal["better", "worse", "not told apart", "different", ""]


@dataclass(frozen=True)
class Difference:
    """One metric of both, second minus first with its interval, and what that means for the second."""

    metric: str
    first: Metric
    second: Metric
    interval: Interval

    @property
    def verdict(self) -> Verdict:
        """Return "better" or "worse" where the interval leaves 0 out; "" where there is no interval."""
        low, high = self.interval.low, self.interval.high
        if low is None or high is None:
            return ""
        if low <= 0 <= high:
            return "not told apart"
        if self.first.better is None:
            return "different"
        return "better" if (low > 0) == (self.first.better == "higher") else "worse"


def compare_evaluations(first: Evaluation, second: Evaluation) -> list[Difference]:
    """Return the differences of all metrics that both have from the same model, in the first's order."""
    return [
        Difference(name, one, second.metrics[name], difference_interval(one, second.metrics[name]))
        for name, one in first.metrics.items()
        if name in second.metrics and _same_model(first, second, one, second.metrics[name])
    ]


def difference_interval(first: Metric, second: Metric) -> Interval:
    """Return second - first: paired over at least 3 shared prompts, else from both standard errors."""
    shared = [prompt for prompt in first.by_prompt if prompt in second.by_prompt]
    if len(shared) >= FEWEST_PAIRS:
        return paired_interval([first.by_prompt[key] for key in shared], [second.by_prompt[key] for key in shared])
    value = second.value - first.value
    if first.se is None or second.se is None:
        return Interval(value, None, None, None, "no interval")
    se = float(np.hypot(first.se, second.se))
    half = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)) * se
    return Interval(value, se, value - half, value + half, "not paired: standard errors added")


def mismatches(first: Evaluation, second: Evaluation) -> list[str]:
    """Return what makes the two less comparable: other models, other reference clips, metrics that one lacks."""
    notes = []
    for name, one in first.embedders.items():
        other = second.embedders.get(name)
        if other is not None and other.weights != one.weights:
            notes.append(f"{name} has other weights in the second: its metrics are not compared")
    if _reference(first) != _reference(second):
        notes.append("the reference clips differ: FAD, KAD and all that leans on the reference cannot be compared")
    lacking = first.metrics.keys() ^ second.metrics.keys()
    if lacking:
        notes.append(f"only one of them has {', '.join(sorted(lacking))}")
    return notes


def difference_table(first: str, second: str, differences: list[Difference]) -> str:
    """Return the differences in aligned columns."""
    rows = [("metric", first, second, "difference", "95 % interval", "N", "verdict", "how")]
    for each in differences:
        low, high = each.interval.low, each.interval.high
        bounds = "-" if low is None or high is None else f"{low:+.4g} .. {high:+.4g}"
        counts = f"{each.first.n}/{each.second.n}"
        values = (f"{each.first.value:.4g}", f"{each.second.value:.4g}", f"{each.interval.value:+.4g}")
        rows.append((each.metric, *values, bounds, counts, each.verdict, each.interval.method))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _same_model(first: Evaluation, second: Evaluation, one: Metric, other: Metric) -> bool:
    if one.embedder != other.embedder:
        return False
    if one.embedder is None:
        return True
    return first.embedders[one.embedder].weights == second.embedders[one.embedder].weights


def _reference(evaluation: Evaluation) -> list[str]:
    return sorted(evaluation.sets["reference"].files.values()) if "reference" in evaluation.sets else []

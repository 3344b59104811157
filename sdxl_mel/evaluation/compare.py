"""Evaluations side by side, or the checkpoints of a run over their steps: the table, and a chart for each metric.

Differences have intervals, paired by prompt where both evaluations have the same prompts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.evaluation.tables import aligned
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.evaluation import FILE_NAME, Evaluation, Metric, read_evaluation
from sdxl_mel.metrics.intervals import LEVEL, Interval, paired_interval
from sdxl_mel.report.page import Page, code, gallery, paragraph, svg, table

BLUE, ORANGE = "#2f6fdb", "#d9730d"
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
    return "\n".join(aligned(rows))


def _same_model(first: Evaluation, second: Evaluation, one: Metric, other: Metric) -> bool:
    if one.embedder is None or one.embedder != other.embedder:
        return one.embedder == other.embedder
    return first.embedders[one.embedder].weights == second.embedders[one.embedder].weights


def _reference(evaluation: Evaluation) -> list[str]:
    return sorted(evaluation.sets["reference"].files.values()) if "reference" in evaluation.sets else []


@dataclass(frozen=True)
class NamedEvaluation:
    """An evaluation, what it is called in tables, and the number at the end of its name: the step of a checkpoint."""

    name: str
    evaluation: Evaluation

    @property
    def step(self) -> int | None:
        """Return the last number of the name."""
        numbers = re.findall(r"\d+", self.name)
        return int(numbers[-1]) if numbers else None


@dataclass(frozen=True)
class Comparison:
    """At least two evaluations; each is compared with the first. `over_steps` says that they are checkpoints."""

    evaluations: Sequence[NamedEvaluation]
    over_steps: bool = False
    skipped: tuple[Skipped, ...] = ()

    @property
    def first(self) -> NamedEvaluation:
        """Return what the others are compared with."""
        return self.evaluations[0]

    def differences(self) -> list[tuple[NamedEvaluation, list[Difference]]]:
        """Return each other evaluation with its differences from the first."""
        first = self.first.evaluation
        return [(other, compare_evaluations(first, other.evaluation)) for other in self.evaluations[1:]]

    def text(self) -> str:
        """Return the tables of differences, and what makes the evaluations less comparable."""
        lines = [difference_table(self.first.name, other.name, found) for other, found in self.differences()]
        for other in self.evaluations[1:]:
            lines += [f"note: {each}" for each in mismatches(self.first.evaluation, other.evaluation)]
        return "\n\n".join(lines)


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare metrics.json files, or the folders that hold them, with the first of them."""
    unique = len(set(map(_name, paths))) == len(paths)
    return Comparison([NamedEvaluation(_name(path) if unique else str(path), read_evaluation(path)) for path in paths])


def compare_checkpoints(paths: Sequence[Path]) -> Comparison:
    """Compare the evaluations of checkpoints in the order of their steps; one without a whole one is skipped.

    step-000500.safetensors stands for step-000500/metrics.json. Raises InputError for fewer than two evaluations.
    """
    folders = dict.fromkeys(path.with_suffix("") if path.suffix == ".safetensors" else path for path in paths)
    found, skipped = [], []
    for folder in folders:
        if not (folder / FILE_NAME).is_file() and folder.name != FILE_NAME:
            why = f"not evaluated; generate with it, then sdxl-mel evaluate --generated ... --out {folder}"
            skipped.append(Skipped(what=str(folder), why=why))
            continue
        try:
            found.append(NamedEvaluation(_name(folder), read_evaluation(folder)))
        except FormatError as error:
            skipped.append(Skipped(what=str(folder), why=str(error)))
    if len(found) < 2:
        raise InputError(
            f"{len(found)} of {len(folders)} checkpoints have an evaluation, 2 are needed: write each one's with "
            "sdxl-mel evaluate --out run/checkpoints/step-000500, beside the checkpoint of that name"
        )
    found.sort(key=lambda one: (one.step is None, one.step or 0, one.name))
    return Comparison(found, over_steps=True, skipped=tuple(skipped))


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write comparison.txt and report.html; over steps each metric is drawn against the step of the checkpoint."""
    write_text(folder / "comparison.txt", comparison.text() + "\n")
    evaluations, first = comparison.evaluations, comparison.first
    names = ", ".join(one.name for one in evaluations)
    page = Page("Checkpoints" if comparison.over_steps else "Comparison", f"{names}. Every interval is 95 %.")
    metrics = [name for name in first.evaluation.metrics if all(name in one.evaluation.metrics for one in evaluations)]
    charts = [svg(chart(name, evaluations, comparison.over_steps), _caption(first, name)) for name in metrics]
    page.section("Charts", gallery(charts))
    if comparison.over_steps:
        page.section("Best step by metric", table(["metric", "best", "value"], _best(evaluations, metrics)))
    for other, differences in comparison.differences():
        lead = paragraph("Second minus first; better or worse is said only where the interval leaves 0 out.")
        page.section(
            f"{first.name} and {other.name}", lead, code(difference_table(first.name, other.name, differences))
        )
    page.write(folder / "report.html")


def chart(name: str, evaluations: Sequence[NamedEvaluation], over_steps: bool) -> Figure:
    """Return one metric of all evaluations with its intervals, over steps or side by side."""
    metrics = [one.evaluation.metrics[name] for one in evaluations]
    stepped = over_steps and all(one.step is not None for one in evaluations)
    places = [float(one.step or 0) for one in evaluations] if stepped else [float(i) for i in range(len(metrics))]
    values = [metric.value for metric in metrics]
    below = [np.nan if one.low is None else max(0.0, one.value - one.low) for one in metrics]
    above = [np.nan if one.high is None else max(0.0, one.high - one.value) for one in metrics]
    figure = Figure(figsize=(4.6, 2.8))
    axes = figure.add_subplot()
    axes.errorbar(places, values, yerr=[below, above], fmt="o-" if stepped else "o", color=BLUE, capsize=3)
    floor = metrics[-1].details.floor
    if floor is not None:
        axes.axhline(floor.value, color=ORANGE, ls="--")
    if stepped:
        axes.set_xlabel("step")
    else:
        axes.set_xticks(places, [one.name for one in evaluations], rotation=20, ha="right")
        axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylabel(name)
    return figure


def _caption(first: NamedEvaluation, name: str) -> str:
    metric = first.evaluation.metrics[name]
    word = {"higher": "higher is better", "lower": "lower is better", None: ""}[metric.better]
    return ", ".join(part for part in (name, word, metric.embedder or "") if part)


def _best(evaluations: Sequence[NamedEvaluation], metrics: list[str]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name in metrics:
        better = evaluations[0].evaluation.metrics[name].better
        if better is not None:
            sign = 1.0 if better == "higher" else -1.0
            best = max(evaluations, key=lambda one: sign * one.evaluation.metrics[name].value)
            rows.append([name, best.name, best.evaluation.metrics[name].value])
    return rows


def _name(path: Path) -> str:
    return path.parent.name or path.stem if path.name == FILE_NAME else path.name

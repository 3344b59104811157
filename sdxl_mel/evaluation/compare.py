"""Evaluations side by side, or the checkpoints of a run over their steps: the table, and a chart for each metric."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.differences import Difference, compare_evaluations, difference_table, mismatches
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.evaluation import FILE_NAME, Evaluation, Metric, read_evaluation
from sdxl_mel.report.page import Page, code, gallery, paragraph, svg, table

BLUE, ORANGE = "#2f6fdb", "#d9730d"


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

    @property
    def last(self) -> Evaluation:
        """Return the last evaluation."""
        return self.evaluations[-1].evaluation

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
    names = [_name(path) for path in paths]
    unique = len(set(names)) == len(names)
    return Comparison(
        [
            NamedEvaluation(name if unique else str(path), read_evaluation(path))
            for name, path in zip(names, paths, strict=True)
        ]
    )


def compare_checkpoints(paths: Sequence[Path]) -> Comparison:
    """Compare the evaluations of checkpoints in the order of their steps; one that was not evaluated is skipped.

    step-000500.safetensors stands for step-000500/metrics.json. Raises InputError for fewer than two evaluations.
    """
    folders = dict.fromkeys(path.with_suffix("") if path.suffix == ".safetensors" else path for path in paths)
    found, skipped = [], []
    for folder in folders:
        if (folder / FILE_NAME).is_file() or folder.name == FILE_NAME:
            found.append(NamedEvaluation(_name(folder), read_evaluation(folder)))
        else:
            why = f"not evaluated; generate with it, then sdxl-mel evaluate --generated ... --out {folder}"
            skipped.append(Skipped(what=str(folder), why=why))
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
    metrics = [name for name in first.evaluation.metrics if _have(evaluations, name)]
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
    figure = Figure(figsize=(4.6, 2.8))
    axes = figure.add_subplot()
    axes.errorbar(
        places, values, yerr=[_below(metrics), _above(metrics)], fmt="o-" if stepped else "o", color=BLUE, capsize=3
    )
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


def _below(metrics: list[Metric]) -> list[float]:
    return [0.0 if one.low is None else max(0.0, one.value - one.low) for one in metrics]


def _above(metrics: list[Metric]) -> list[float]:
    return [0.0 if one.high is None else max(0.0, one.high - one.value) for one in metrics]


def _have(evaluations: Sequence[NamedEvaluation], name: str) -> bool:
    return all(name in one.evaluation.metrics for one in evaluations)


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

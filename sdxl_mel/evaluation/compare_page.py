"""The report of a comparison: the table, and a chart for each metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdxl_mel.evaluation.differences import Difference, difference_table
from sdxl_mel.files.evaluation import Evaluation, Metric
from sdxl_mel.report.page import Page, code, gallery, paragraph, svg, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#2f6fdb", "#d9730d"


class NamedEvaluation(Protocol):
    """An evaluation with its name, and its step if it is a checkpoint."""

    name: str
    step: int | None
    evaluation: Evaluation


def write_page(
    path: Path,
    evaluations: Sequence[NamedEvaluation],
    compared: Sequence[tuple[NamedEvaluation, list[Difference]]],
    over_steps: bool,
) -> None:
    """Write the report; `over_steps` draws each metric against the step of the checkpoint."""
    names = ", ".join(one.name for one in evaluations)
    page = Page("Checkpoints" if over_steps else "Comparison", f"{names}. Every interval is 95 %.")
    metrics = [name for name in evaluations[0].evaluation.metrics if _have(evaluations, name)]
    charts = [svg(chart(name, evaluations, over_steps), _caption(evaluations, name)) for name in metrics]
    page.section("Charts", gallery(charts))
    if over_steps:
        page.section("Best step by metric", table(["metric", "best", "value"], _best(evaluations, metrics)))
    first = evaluations[0].name
    for other, differences in compared:
        lead = paragraph("Second minus first; better or worse is said only where the interval leaves 0 out.")
        page.section(f"{first} and {other.name}", lead, code(difference_table(first, other.name, differences)))
    page.write(path)


def chart(name: str, evaluations: Sequence[NamedEvaluation], over_steps: bool) -> "Figure":
    """Return one metric of all evaluations with its intervals, over steps or side by side."""
    from matplotlib.figure import Figure

    metrics = [one.evaluation.metrics[name] for one in evaluations]
    stepped = over_steps and all(one.step is not None for one in evaluations)
    places = [float(one.step or 0) for one in evaluations] if stepped else [float(i) for i in range(len(metrics))]
    values = [metric.value for metric in metrics]
    figure = Figure(figsize=(4.6, 2.8))
    axes = figure.add_subplot()
    axes.errorbar(
        places, values, yerr=[_below(metrics), _above(metrics)], fmt="o-" if stepped else "o", color=BLUE, capsize=3
    )
    floor = metrics[-1].details.get("floor")
    level = floor.get("value") if isinstance(floor, dict) else None
    if isinstance(level, float):
        axes.axhline(level, color=ORANGE, ls="--")
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


def _caption(evaluations: Sequence[NamedEvaluation], name: str) -> str:
    metric = evaluations[0].evaluation.metrics[name]
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

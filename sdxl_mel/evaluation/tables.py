"""The evaluation as text: a table for the terminal, and one row a clip as CSV."""

import csv
from collections.abc import Sequence
from io import StringIO

from sdxl_mel.files.evaluation import Evaluation, Metric


def metric_table(evaluation: Evaluation) -> str:
    """Return the metrics with their intervals in aligned columns, then what is absent and why."""
    rows = [("metric", "value", "95 % interval", "N", "embedder", "in words")]
    rows += [
        (name, f"{metric.value:.4g}", interval_text(metric), str(metric.n), metric.embedder or "-", in_words(metric))
        for name, metric in evaluation.metrics.items()
    ]
    lines = aligned(rows)
    lines += [f"absent: {each.metric}: {each.why}" for each in evaluation.absent]
    for name, each in evaluation.sets.items():
        left_out = f", {each.left_out} left out" if each.left_out else ""
        lines.append(f"{name}: {each.used} clips, {each.seconds:.0f} s{left_out}")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines whose columns begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def interval_text(metric: Metric) -> str:
    """Return the bounds, or a dash."""
    return "-" if metric.low is None or metric.high is None else f"{metric.low:.4g} .. {metric.high:.4g}"


def in_words(metric: Metric) -> str:
    """Return the grade with the range its interval spans, or what else a reader must know at once."""
    if metric.grade:
        span = f" ({metric.grade_span[0]} to {metric.grade_span[-1]})" if len(metric.grade_span) > 1 else ""
        return metric.grade + span
    details = metric.details
    floor = details.floor.value if details.floor else None
    known = (("floor", floor), ("p", details.p), ("chance", details.chance))
    notes = [f"{name} {value:.3g}" for name, value in known if value is not None]
    if metric.no_grade and metric.no_grade.startswith("inconclusive"):
        notes.append(metric.no_grade)
    return ", ".join(notes)


def clip_table(evaluation: Evaluation) -> str:
    """Return the values of every clip as CSV."""
    names = list(dict.fromkeys(name for clip in evaluation.clips for name in clip))
    buffer = StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for clip in evaluation.clips:
        writer.writerow({name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in clip.items()})
    return buffer.getvalue()

"""The curves of a run: what its `metrics.jsonl` says, drawn."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.run import CURVES_NAME, read_metrics

SMOOTHING = 0.95
VALIDATION = "validation/"


def write_curves(run: Path) -> None:
    """Draw the metrics of a run to curves.png."""
    buffer = BytesIO()
    curves_figure(read_metrics(run)).savefig(buffer, dpi=120, metadata={"Software": None})
    write_bytes(run / CURVES_NAME, buffer.getvalue())


def curves_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the smoothed losses of training beside those of every validation."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("loss", "squared_error"):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            steps, values = zip(*points)
            left.plot(steps, _smoothed(values), label=name.replace("_", " "))
    left.set(xlabel="step", title=f"training (smoothed, {SMOOTHING:g})", yscale="log")
    left.legend()
    kinds = sorted({name for row in rows for name in row if name.startswith(VALIDATION)})
    for kind in kinds:
        points = [(row["step"], sum(row[kind]) / len(row[kind])) for row in rows if kind in row]
        right.plot(*zip(*points), marker="o", label=kind.removeprefix(VALIDATION))
    right.set(xlabel="step", title="squared error, fixed noise")
    if kinds:
        right.legend()
    return figure


def _smoothed(values: Sequence[float]) -> list[float]:
    smooth, result = 0.0, []
    for count, value in enumerate(values, start=1):
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * value
        result.append(smooth / (1 - SMOOTHING**count))
    return result

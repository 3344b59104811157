"""What a run tells while it runs: a line of numbers a step, alarms, when to stop, and its curves."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from matplotlib.figure import Figure

from sdxl_mel.errors import ResourceError
from sdxl_mel.files.atomic import write_bytes, write_text
from sdxl_mel.files.run import CURVES_NAME, METRICS_NAME, read_metrics
from sdxl_mel.progress import log
from sdxl_mel.training.task import HELD_OUT, TRAINED

SMOOTHING = 0.95
VALIDATION = "validation/"
Validation = Mapping[str, Sequence[float]]
"""The losses on each set of examples (see Task.validate)."""


class Log:
    """`metrics.jsonl` and the trackers of accelerate; only the first process writes."""

    def __init__(self, run: Path, accelerator: Accelerator, step: int) -> None:
        self.path, self.accelerator = run / METRICS_NAME, accelerator
        if accelerator.is_main_process:
            kept = [row for row in read_metrics(run) if row["step"] <= step] if step else []
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, step: int, values: Mapping[str, float | Sequence[float]]) -> None:
        """Append one line, and a point on the curve of every number."""
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be written ({error.strerror}); the saved states are whole: make room and --resume"
            ) from error
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=step)


def mean_loss(losses: Sequence[float]) -> float:
    """Return the mean over all parts of the noise."""
    return sum(losses) / len(losses)


def report_validation(step: int, what: str, validation: Validation, gap: float) -> None:
    """Say the mean losses, an alarm if there is one, and with --verbose those of every part of the noise."""
    log(f"step {step}: {what} " + ", ".join(f"{mean_loss(each):.4f} {name}" for name, each in validation.items()))
    for name, each in validation.items():
        log(f"  {name}: " + " ".join(f"{value:.3f}" for value in each), detail=True)
    if alarm := gap_alarm(validation, gap):
        log(alarm)


def gap_alarm(validation: Validation, allowed: float) -> str | None:
    """Return a warning if held-out examples do much worse than trained ones."""
    if not {HELD_OUT, TRAINED} <= validation.keys():
        return None
    held_out, trained = mean_loss(validation[HELD_OUT]), mean_loss(validation[TRAINED])
    if held_out <= trained * (1 + allowed):
        return None
    return (
        f"ALARM: loss {held_out:.4f} on held-out tracks, {trained:.4f} on trained ones (over {allowed:.0%} apart): "
        "the clips are learnt by heart; fewer steps, a lower rank or more dropout would help"
    )


def out_of_patience(validations: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Return whether the last `patience` validations were all no better than the best before them."""
    losses = [mean_loss(each["losses"][HELD_OUT]) for each in validations if HELD_OUT in each["losses"]]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


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

"""What a run tells while it runs: a line of numbers a step, curves, and alarms."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.files.atomic import write_text
from sdxl_mel.progress import log
from sdxl_mel.training.step import DECILES, Measured
from sdxl_mel.training.validation import Losses, mean_loss

METRICS = "metrics.jsonl"


class Log:
    """`metrics.jsonl` and the trackers of accelerate; only the first process writes."""

    def __init__(self, run: Path, accelerator: Accelerator, step: int) -> None:
        self.path, self.accelerator = run / METRICS, accelerator
        if accelerator.is_main_process:
            kept = [row for row in read_metrics(run) if row["step"] <= step] if step else []
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, step: int, values: Mapping[str, float | list[float]]) -> None:
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


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`; a last line that was cut off by a kill is left out."""
    path = run / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def numbers_of(measured: Measured, batch: int, seconds: float, huber: bool) -> dict[str, float | list[float]]:
    """Return what is logged of a step; the tenths of the timesteps hold the squared error, -1 where none was drawn."""
    sums = measured.sums
    tenths, counts = sums[3 : 3 + DECILES], sums[3 + DECILES : 3 + 2 * DECILES]
    values: dict[str, float | list[float]] = {
        "loss": sums[0] / batch,
        "squared_error": sums[1] / batch,
        "rate": measured.rate,
        "gradient": measured.gradient,
        "seconds": seconds,
        "by_timestep": [total / count if count else -1.0 for total, count in zip(tenths, counts)],
    }
    return values | ({"delta": sums[2] / batch} if huber else {})


def require_finite(measured: Measured, kept: Path | None) -> None:
    """Raise InputError that names the examples if a step's loss or gradient is not finite."""
    loss, gradient = measured.sums[0], measured.gradient
    if math.isfinite(loss) and math.isfinite(gradient):
        return
    bad = [source for source, value in zip(measured.sources, measured.losses) if not math.isfinite(value)]
    raise InputError(
        f"step {measured.step}: loss {loss:g}, gradient {gradient:g}; examples with a loss that is not finite: "
        f"{', '.join(bad) or 'none, of ' + ', '.join(measured.sources)}; "
        f"the last good state is {kept or 'the start'}: lower optimizer.rate, or check these clips, and --resume"
    )


def gap_alarm(losses: Losses, allowed: float) -> str | None:
    """Return a warning if held-out clips do much worse than trained ones."""
    if not {"held out", "trained"} <= losses.keys():
        return None
    held_out, trained = mean_loss(losses["held out"]), mean_loss(losses["trained"])
    if held_out <= trained * (1 + allowed):
        return None
    return (
        f"ALARM: loss {held_out:.4f} on held-out tracks, {trained:.4f} on trained ones (over {allowed:.0%} apart): "
        "the LoRA learns the clips by heart; fewer steps, a lower rank or more dropout would help"
    )


def out_of_patience(validations: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Return whether the last `patience` validations were all no better than the best before them."""
    losses = [mean_loss(each["losses"]["held out"]) for each in validations if "held out" in each["losses"]]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def report_validation(step: int, losses: Losses) -> None:
    """Say the mean losses of a validation, and with --verbose those of every tenth of the timesteps."""
    log(f"step {step}: squared error " + ", ".join(f"{mean_loss(each):.4f} {kind}" for kind, each in losses.items()))
    for kind, each in losses.items():
        log(f"  {kind} by timestep: " + " ".join(f"{value:.3f}" for value in each), detail=True)

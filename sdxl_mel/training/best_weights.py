"""Which weights of a finished run are its LoRA: the last or one of their averages, whichever does best held out."""

from pydantic import JsonValue

from sdxl_mel.models.lora.file import LoraHeader
from sdxl_mel.training.artefacts import averaged, write_average, write_final
from sdxl_mel.training.loop import Training
from sdxl_mel.training.validation import mean_loss, validate

LAST = "last"


def write_best(training: Training, header: LoraHeader) -> dict[str, JsonValue]:
    """Write the LoRA, and every average beside it; returns what was chosen and the held-out loss of each."""
    state, run = training.state, training.config.out
    if not state.averages.lengths:
        write_final(run, state, header)
        return {}
    losses = {LAST: _held_out(training)}
    for length in state.averages.lengths:
        with averaged(state, length):
            losses[f"{length:g}"] = _held_out(training)
            write_average(run, state, header, length)
    best = min(losses, key=lambda name: losses[name])
    if best == LAST:
        write_final(run, state, header)
    else:
        with averaged(state, float(best)):
            write_final(run, state, header)
    return {"average": best, "held-out loss of each": {name: round(loss, 5) for name, loss in losses.items()}}


def _held_out(training: Training) -> float:
    """Return the squared error on held-out clips; 0 for all where there are none, so that the last weights win."""
    clips = training.probe.get("held out")
    if not clips:
        return 0.0
    losses = validate(training.model, training.training_data, {"held out": clips}, training.config.batch)
    return mean_loss(losses["held out"])

"""The training loop: draw, step, look, save."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from sdxl_mel.diffusion.schedules import rate_factor
from sdxl_mel.errors import ResourceError
from sdxl_mel.progress import Ticker, log, progress
from sdxl_mel.training.batches import Batch, TrainingData, micro_batches, share_of
from sdxl_mel.training.log import Log, gap_alarm, numbers_of, out_of_patience, report_validation, require_finite
from sdxl_mel.training.model import Model, quick_attention
from sdxl_mel.training.objective import Objective
from sdxl_mel.training.optimizers import evaluation_weights
from sdxl_mel.training.settings import Config
from sdxl_mel.training.state import State, save_state
from sdxl_mel.training.step import SUMS, Measured, Readback, backward, share_gradients, update
from sdxl_mel.training.validation import Probe, validate

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While the block runs, a signal sets `wanted`; a second one acts as it always does."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@dataclass
class Training:
    """Everything a run works with; `checkpoint` and `sample` are called with the state when their step has come."""

    config: Config
    accelerator: Accelerator
    model: Model
    training_data: TrainingData
    objective: Objective
    state: State
    log: Log
    probe: Probe
    checkpoint: Callable[[State], None]
    sample: Callable[[State], None] | None = None
    kept: Path | None = None
    seconds: float = 0.0
    steps: int = 0

    @property
    def main(self) -> bool:
        """Return whether this process writes."""
        return self.accelerator.is_main_process

    @property
    def seconds_per_step(self) -> float:
        """Return the mean time of a step since the run was started or resumed."""
        return self.seconds / max(self.steps, 1)


def train(run: Training) -> State:
    """Train to the last step, or until patience ends. Raises KeyboardInterrupt, the state saved, when told to stop."""
    state, config = run.state, run.config
    shown = progress(config.steps, "train", "steps", done=state.step) if run.main else _unseen()
    with (
        Interrupts() as interrupts,
        drawn_ahead(run) as draw,
        shown as ticker,
        quick_attention(run.model),
        _clear_memory_errors(config),
    ):
        if state.step == 0:
            look(run)
        pending: Measured | None = None
        while state.step < config.steps and not state.notes.stopped:
            measured = advance(run, draw(state.step), interrupts.wanted)
            # What the step before measured is read only now, so that the device never waits for it.
            stop = _note(run, pending, ticker, measured.started)
            pending = measured
            if stop or _is_due(config, state.step):
                _note(run, pending, ticker)
                pending = None
                look(run)
                save(run, always=stop)
            if stop:
                raise KeyboardInterrupt
        _note(run, pending, ticker)
        save(run, always=True)
    return state


def advance(run: Training, batches: list[Batch], interrupted: bool = False) -> Measured:
    """Take one optimizer step."""
    state, config, adapter = run.state, run.config, run.config.adapter
    started = time.perf_counter()
    sums = torch.zeros(SUMS, device=run.model.device)
    sources: list[str] = []
    losses: list[torch.Tensor] = []
    sums[-1] = float(interrupted)
    for batch in map(run.model.moved, batches):
        state.adapters.draw_masks(config.seed, state.step, batch.slots, adapter.rank_dropout, adapter.module_dropout)
        piece, each = backward(run.model, run.objective, batch, state.step, config.batch)
        sums[: len(piece)] += piece
        sources += batch.sources
        losses.append(each)
    sums = share_gradients(run.accelerator, state.adapters, sums)
    settings = config.optimizer
    factor = rate_factor(state.step, config.steps, settings.schedule, settings.warmup, settings.final)
    gradient = update(state.optimizer, state.adapters.parameters(), factor, settings.clip)
    state.step += 1
    _average(state, config)
    numbers = Readback(torch.cat([sums, gradient.reshape(1), *losses]))
    return Measured(state.step, started, state.optimizer.param_groups[0]["lr"], sources, numbers)


def look(run: Training) -> None:
    """Validate and sample if their step has come."""
    state, settings = run.state, run.config.validation
    with evaluation_weights(state.optimizer):
        if settings.every and run.probe and _due(state.step, settings.every, run.config.steps):
            losses = validate(run.model, run.training_data, run.probe, run.config.batch, run.accelerator)
            state.notes.validations.append({"step": state.step, "losses": losses})
            run.log.write(state.step, {f"validation/{kind}": each for kind, each in losses.items()})
            if run.main:
                report_validation(state.step, losses)
                if alarm := gap_alarm(losses, settings.gap):
                    log(alarm)
                if state.step == 0 and "trained" in losses:
                    log(run.objective.pull_line(losses["trained"]))
            if out_of_patience(state.notes.validations, settings.patience):
                state.notes.stopped = f"no better validation in the last {settings.patience}"
        if run.sample is not None and _due(state.step, run.config.samples.every, run.config.steps):
            run.sample(state)


def save(run: Training, always: bool = False) -> None:
    """Save the state if its step has come, or always."""
    if not run.main or not (always or run.state.step % run.config.save_every == 0):
        return
    run.kept = save_state(run.config.out, run.state, run.config.keep)
    with evaluation_weights(run.state.optimizer):
        run.checkpoint(run.state)


def _average(state: State, config: Config) -> None:
    averages = config.averages
    state.averages.update(state.adapters.parameters(), state.step)
    if averages.feedback_every and state.step % averages.feedback_every == 0:
        state.averages.feed_back(state.adapters.parameters(), averages.feedback_share)


def _note(run: Training, measured: Measured | None, ticker: Ticker, until: float | None = None) -> bool:
    """Log what a step measured, once; returns whether any process was told to stop."""
    if measured is None:
        return False
    require_finite(measured, run.kept)
    seconds = (until or time.perf_counter()) - measured.started
    run.seconds, run.steps = run.seconds + seconds, run.steps + 1
    numbers = numbers_of(measured, run.config.batch, seconds, run.config.loss.kind == "huber")
    run.log.write(measured.step, numbers)
    ticker.advance(note=f"loss {numbers['loss']:.4f}, mse {numbers['squared_error']:.4f}, rate {measured.rate:.1e}")
    return measured.told_to_stop


def _due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _is_due(config: Config, step: int) -> bool:
    intervals = (config.save_every, config.validation.every, config.samples.every)
    return step == config.steps or any(every and step % every == 0 for every in intervals)


@contextmanager
def drawn_ahead(run: Training) -> Iterator[Callable[[int], list[Batch]]]:
    """Yield a function that returns a step's batches; the next step's are drawn while this one computes."""
    accelerator, config = run.accelerator, run.config
    places = share_of(config.batch, accelerator.process_index, accelerator.num_processes)
    pieces = micro_batches(places, config.micro_batch)
    ahead: dict[int, Future[list[Batch]]] = {}

    def compute(step: int) -> list[Batch]:
        return [run.training_data.batch(step, piece) for piece in pieces]

    with ThreadPoolExecutor(1) as pool:

        def draw(step: int) -> list[Batch]:
            current = ahead.pop(step, None) or pool.submit(compute, step)
            ahead[step + 1] = pool.submit(compute, step + 1)
            return current.result()

        yield draw


@contextmanager
def _unseen() -> Iterator[Ticker]:
    class Unseen:
        def advance(self, count: int = 1, note: str = "") -> None:
            pass

    yield Unseen()


@contextmanager
def _clear_memory_errors(config: Config) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(memory_advice(config)) from error
    except MemoryError as error:
        raise ResourceError(memory_advice(config)) from error


def memory_advice(config: Config) -> str:
    """Return what to change when the memory does not suffice, the cheapest first."""
    advice = []
    if (config.micro_batch or config.batch) > 1:
        advice.append(
            f"--micro-batch {max(1, (config.micro_batch or config.batch) // 2)} (same result, a little slower)"
        )
    if not config.hardware.gradient_checkpointing:
        advice.append("--hardware.gradient-checkpointing (same result, a third slower)")
    if config.optimizer.name == "adamw":
        advice.append("--optimizer.name adamw-8bit")
    advice.append(f"--adapter.rank {max(1, config.adapter.rank // 2)} or a smaller spectrogram preset")
    return f"out of memory with batch {config.batch}; lower it by {', or '.join(advice)}; then --resume"

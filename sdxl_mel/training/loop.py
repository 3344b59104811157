"""The training loop: draw, step, validate, sample, save. It knows a Task, and nothing of what the task trains."""

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import JsonValue

from sdxl_mel.diffusion.schedules import rate_factor
from sdxl_mel.errors import InputError
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.run import average_path, checkpoint_path
from sdxl_mel.progress import Ticker, log, muted, progress
from sdxl_mel.training.ema import Averages
from sdxl_mel.training.log import VALIDATION, Log, mean_loss, out_of_patience, report_validation, write_curves
from sdxl_mel.training.optimizers import build_optimizer, set_rates
from sdxl_mel.training.settings import LoopSettings
from sdxl_mel.training.state import State, evaluation_weights, load_state, save_state, saved_states
from sdxl_mel.training.task import HELD_OUT, Losses, Task, micro_batches, share_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST = "last"
SECONDS = "seconds per step"
TOTAL, COUNT = " total", " count"

Results = dict[str, JsonValue]
Sample = Callable[[State], Mapping[str, float]]
"""Draws samples of a state and returns what was measured of them."""


def train(
    task: Task,
    settings: LoopSettings,
    out: Path,
    accelerator: Accelerator,
    *,
    resume: bool = False,
    changed: bool = False,
    sample: Sample | None = None,
) -> Results:
    """Train a task to its last step, or until patience ends, write its result into `out`, and return what it came to.

    `resume` goes on from the last saved state, bit for bit; `changed` says that settings were altered since, so that
    a run that had stopped by itself starts again. Every process calls this; the first one writes and has the results.
    Raises KeyboardInterrupt, the state saved, when told to stop, and InputError when a loss is not finite.
    """
    if settings.batch < accelerator.num_processes:
        raise InputError(f"batch: found {settings.batch}; {accelerator.num_processes} devices need at least as much")
    state = open_state(task, settings)
    if resume:
        # A run that saved no state starts over.
        if states := list(saved_states(out)):
            load_state(states[-1], state)
        if changed:
            state.history.stopped = None
        log(f"{out}: resuming at step {state.step}")
    loop = Loop(task, settings, out, accelerator, state, Log(out, accelerator, state.step), sample)
    loop.run()
    return loop.finish()


def open_state(task: Task, settings: LoopSettings) -> State:
    """Return the state at step 0."""
    chosen = settings.optimizer
    optimizer = build_optimizer(
        chosen.name,
        task.parameter_groups(),
        weight_decay=chosen.weight_decay,
        betas=(chosen.beta1, chosen.beta2),
        epsilon=chosen.epsilon,
        warmup=chosen.warmup,
    )
    averages = Averages(task.parameters.values(), settings.averages.lengths)
    return State(task.parameters, optimizer, averages, task.extra_state)


@dataclass
class Loop:
    """A run under way; `kept` is the last saved state, `seconds` and `steps` are counted since its start or resume."""

    task: Task
    settings: LoopSettings
    out: Path
    accelerator: Accelerator
    state: State
    log: Log
    sample: Sample | None = None
    kept: Path | None = None
    seconds: float = 0.0
    steps: int = 0

    def run(self) -> None:
        """Take every step that is left."""
        state, settings = self.state, self.settings
        shown = progress(settings.steps, "train", "steps", done=state.step)
        with interrupts() as came, closing(self.drawn_ahead()) as batches, muted(not self.main), shown as ticker:
            if state.step == 0:
                self.validate_and_sample()
            pending: Measured | None = None
            while state.step < settings.steps and not state.history.stopped:
                measured = self.step(next(batches), bool(came))
                # What the step before measured is read only now, so that the device never waits for it.
                stop = self._note(pending, ticker, measured.started)
                pending = measured
                if stop or self._anything_due():
                    stop = self._note(pending, ticker) or stop
                    pending = None
                    self.validate_and_sample()
                    self.save(always=stop)
                if stop:
                    raise KeyboardInterrupt
            self._note(pending, ticker)
            self.save(always=True)

    def step(self, batches: Sequence[Any], stop: bool = False) -> "Measured":
        """Take one optimizer step; `stop` tells all processes that this one was told to stop.

        Each example counts 1 / batch however the whole was cut, so micro-batches of unequal sizes are exact.
        """
        started, state, settings = time.perf_counter(), self.state, self.settings
        parameters = list(state.parameters.values())
        sums: dict[str, torch.Tensor] = {}
        sources: list[str] = []
        each: list[torch.Tensor] = []
        for batch in batches:
            losses = self.task.losses(batch, state.step)
            (losses.each.sum() / settings.batch).backward()
            sums = {name: sums[name] + part if sums else part for name, part in _sums_of(losses).items()}
            sources += losses.sources
            each.append(losses.each.detach())
        sums["stop"] = each[0].new_full((1,), float(stop))
        sums = _over_processes(self.accelerator, parameters, sums)
        moved = settings.optimizer
        gradient = torch.nn.utils.clip_grad_norm_(parameters, moved.clip or float("inf"))
        factor = rate_factor(state.step, settings.steps, moved.schedule, moved.warmup, moved.final)
        set_rates(state.optimizer, factor)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self._average(parameters)
        numbers = Readback({**sums, "gradient": gradient.reshape(1), "each": torch.cat(each)})
        return Measured(state.step, started, state.optimizer.param_groups[0]["lr"], sources, numbers)

    def validate_and_sample(self) -> None:
        """Validate and sample if their step has come."""
        state, settings = self.state, self.settings.validation
        with evaluation_weights(state.optimizer):
            if settings.every and self.task.judged and self._due(settings.every):
                validation = {name: self.task.validate(name) for name in self.task.judged}
                state.history.validations.append({"step": state.step, "losses": validation})
                self.log.write(state.step, {f"{VALIDATION}{name}": each for name, each in validation.items()})
                if self.main:
                    report_validation(state.step, self.task.judged_by, validation, settings.gap)
                    if state.step == 0 and (remark := self.task.remark(validation)):
                        log(remark)
                if out_of_patience(state.history.validations, settings.patience):
                    state.history.stopped = f"no better validation in the last {settings.patience}"
            if self.sample is not None and self._due(self.settings.sample_every):
                self.log.write(state.step, self.sample(state))

    def save(self, always: bool = False) -> None:
        """Save the state and the weights if their step has come, or always."""
        if not self.main or not (always or self.state.step % self.settings.save_every == 0):
            return
        self.kept = save_state(self.out, self.state, self.settings.keep)
        with evaluation_weights(self.state.optimizer):
            self.task.save(checkpoint_path(self.out, self.state.step), self.state.step)

    def finish(self) -> Results:
        """Write the result of the run and its curves; returns what the run came to."""
        state = self.state
        results: Results = {"steps": state.step}
        if self.steps:
            results[SECONDS] = round(self.seconds / self.steps, 4)
        with evaluation_weights(state.optimizer):
            results |= self._save_best()
        if state.history.stopped:
            results["stopped early"] = state.history.stopped
        validations = [each["losses"] for each in state.history.validations]
        for name in validations[-1] if validations else ():
            course = [round(mean_loss(each[name]), 5) for each in validations if name in each]
            results[f"{self.task.judged_by}, {name}"] = [course[0], course[-1]] if len(course) > 1 else course[0]
        if self.main:
            write_curves(self.out)
        return results

    def _save_best(self) -> Results:
        """Save the last weights or one of their averages, whichever does best held out, and every average beside."""
        state, lengths = self.state, self.state.averages.lengths
        losses: dict[str, float] = {}
        for name, length in ((LAST, None), *((f"{length:g}", length) for length in lengths)):
            with nullcontext() if length is None else state.averaged(length):
                if lengths and HELD_OUT in self.task.judged:
                    losses[name] = mean_loss(self.task.validate(HELD_OUT))
                if length is not None and self.main:
                    self.task.save(average_path(self.out, length), state.step)
        best = min(losses, key=lambda name: losses[name], default=LAST)
        with nullcontext() if best == LAST else state.averaged(float(best)):
            if self.main:
                self.task.save_result(self.out, state.step)
        if not lengths:
            return {}
        if not losses:
            return {"average": f"{LAST}; not compared: no clips are held out, or validation.every is 0"}
        return {"average": best, "held-out loss of each": {name: round(loss, 5) for name, loss in losses.items()}}

    @property
    def main(self) -> bool:
        """Return whether this process writes."""
        return bool(self.accelerator.is_main_process)

    def drawn_ahead(self) -> Generator[list[Any], None, None]:
        """Yield the batches of every step that is left; the next step's are drawn while this one computes."""
        share = share_of(self.settings.batch, self.accelerator.process_index, self.accelerator.num_processes)
        pieces = micro_batches(share, self.settings.micro_batch)
        steps = range(self.state.step, self.settings.steps)
        return map_jobs(lambda step: [self.task.batch(step, piece) for piece in pieces], steps, workers=1, look_ahead=1)

    def _average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        state, settings = self.state, self.settings.averages
        state.averages.update(parameters, state.step)
        if settings.feedback_every and state.step % settings.feedback_every == 0:
            state.averages.feed_back(parameters, settings.feedback_share)

    def _note(self, measured: "Measured | None", ticker: Ticker, until: float | None = None) -> bool:
        """Log what a step measured, once; returns whether any process was told to stop."""
        if measured is None:
            return False
        require_finite(measured, self.kept)
        seconds = (until or time.perf_counter()) - measured.started
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1
        numbers = numbers_of(measured, self.settings.batch, seconds)
        self.log.write(measured.step, numbers)
        ticker.advance(note=f"loss {numbers['loss']:.4f}, rate {measured.rate:.1e}")
        return measured.numbers["stop"][0] > 0

    def _due(self, every: int) -> bool:
        return bool(every) and (self.state.step % every == 0 or self.state.step == self.settings.steps)

    def _anything_due(self) -> bool:
        settings = self.settings
        return any(map(self._due, (settings.save_every, settings.validation.every, settings.sample_every)))


class Readback:
    """Named numbers on their way from the device: asked for at once, read later, so that it is never waited for."""

    def __init__(self, numbers: Mapping[str, torch.Tensor]) -> None:
        self._sizes = {name: each.numel() for name, each in numbers.items()}
        self._host, self._event = torch.cat(list(numbers.values())), None
        if self._host.device.type == "cuda":
            device, self._host = self._host, torch.empty(self._host.shape, dtype=self._host.dtype, pin_memory=True)
            self._host.copy_(device, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def __getitem__(self, name: str) -> list[float]:
        return self.read[name]

    @cached_property
    def read(self) -> dict[str, list[float]]:
        """Return the numbers by name, waiting only for the work that was queued before them."""
        if self._event is not None:
            self._event.synchronize()
        pieces = self._host.split(list(self._sizes.values()))
        return {name: piece.tolist() for name, piece in zip(self._sizes, pieces)}


@dataclass(frozen=True)
class Measured:
    """What a step did; `started` is a reading of the clock, `sources` are this device's examples.

    Its `numbers` are by name: over the whole batch "loss", "stop" and the total and count of each mean; the
    length of the "gradient" before clipping; the loss of "each" of `sources`.
    """

    step: int
    started: float
    rate: float
    sources: Sequence[str]
    numbers: Readback


def numbers_of(measured: Measured, batch: int, seconds: float) -> dict[str, Any]:
    """Return what is logged of a step; a mean over parts of the noise is None where the batch had no example."""
    means: dict[str, Any] = {}
    numbers = measured.numbers
    for name in (each.removesuffix(TOTAL) for each in numbers.read if each.endswith(TOTAL)):
        pairs = zip(numbers[name + TOTAL], numbers[name + COUNT])
        values = [total / count if count else None for total, count in pairs]
        means[name] = values if len(values) > 1 else values[0]
    return {
        "loss": numbers["loss"][0] / batch,
        "rate": measured.rate,
        "gradient": numbers["gradient"][0],
        "seconds": seconds,
        **means,
    }


def require_finite(measured: Measured, kept: Path | None) -> None:
    """Raise InputError that names the examples if a step's loss or gradient is not finite."""
    loss, gradient = measured.numbers["loss"][0], measured.numbers["gradient"][0]
    if math.isfinite(loss) and math.isfinite(gradient):
        return
    bad = [source for source, value in zip(measured.sources, measured.numbers["each"]) if not math.isfinite(value)]
    raise InputError(
        f"step {measured.step}: loss {loss:g}, gradient {gradient:g}; examples with a loss that is not finite: "
        f"{', '.join(bad) or 'none, of ' + ', '.join(measured.sources)}; "
        f"the last good state is {kept or 'the start'}: lower optimizer.rate, or check these clips, and --resume"
    )


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yield the signals that came while the block runs; after the first they act as they always do."""
    before: dict[int, Any] = {}
    came: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    for number in SIGNALS:
        before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        restore()


def _sums_of(losses: Losses) -> dict[str, torch.Tensor]:
    sums = {"loss": losses.each.detach().sum().reshape(1)}
    for name, mean in losses.logged.items():
        sums |= {name + TOTAL: mean.total.reshape(-1), name + COUNT: mean.count.reshape(-1)}
    return sums


def _over_processes(
    accelerator: Accelerator, parameters: Sequence[torch.nn.Parameter], sums: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Add up gradients and sums over all processes, in one message; returns the sums."""
    if accelerator.num_processes == 1:
        return sums
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts = [*sums.values(), *gradients]
    message = accelerator.reduce(torch.cat([part.flatten() for part in parts]), reduction="sum")
    pieces = message.split([part.numel() for part in parts])
    for gradient, piece in zip(gradients, pieces[len(sums) :]):
        gradient.copy_(piece.view_as(gradient))
    return dict(zip(sums, pieces))

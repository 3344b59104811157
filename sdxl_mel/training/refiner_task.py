"""A refiner as a task: it learns the way from noise to what a decoded picture misses, from any place on it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.diffusion.flow import state_at
from sdxl_mel.files.cache import CachedExample
from sdxl_mel.files.run import REFINER_NAME
from sdxl_mel.models.carried import write_carried, write_weights
from sdxl_mel.models.refiner import LEVELS, Refiner, levels_of
from sdxl_mel.seeding import torch_generator
from sdxl_mel.training.batches import Stream
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.refiner_pairs import Pairs
from sdxl_mel.training.task import Losses, Mean, share_of

JUDGED_TIMES = (0.0, 0.25, 0.5, 0.75)
"""Times at which held-out clips are judged: those of four steps."""
SMOOTHED_OVER = 6
"""Neighbouring levels that share what is known of a level's spread: some are rare."""
LEAST_SPREAD = 2 / (LEVELS - 1)
"""One level, in images of -1..1: what was rounded cannot be told apart."""


@dataclass(frozen=True)
class FlowBatch:
    """Images in -1..1 and noise, (batch, channels, height, width); times and weights, (batch,)."""

    decoded: Tensor
    original: Tensor
    noise: Tensor
    times: Tensor
    weights: Tensor
    sources: tuple[str, ...]


class RefinerTask:
    """A refiner as a Task (see `training.task.Task`); `clips` are those that are judged, by what they are."""

    judged_by = "squared error of the flow"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        refiner: Refiner,
        pairs: Pairs,
        examples: Sequence[CachedExample],
        *,
        starts: float,
        batch: int,
        seed: int,
        rate: float,
        clips: Mapping[str, Sequence[CachedExample]],
        accelerator: Accelerator,
        dtype: torch.dtype,
    ) -> None:
        self.refiner, self.pairs, self.examples = refiner, pairs, examples
        self.starts, self.size, self.seed = starts, batch, seed
        self.rate, self.clips, self.accelerator, self.dtype = rate, clips, accelerator, dtype
        self.stream = Stream("refiner", [example.repeats for example in examples], seed)
        self.parameters = dict(refiner.named_parameters())
        self.judged = tuple(clips)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> FlowBatch:
        """Return pairs with noise, at times of which a share is the start."""
        drawn, times = [], []
        for slot in (step * self.size + place for place in places):
            generator = torch_generator(self.seed, "refiner", slot)
            start, time = torch.rand(2, generator=generator).tolist()
            drawn.append((self.examples[self.stream[slot]], generator))
            times.append(0.0 if start < self.starts else time)
        return self._batch(drawn, times)

    def losses(self, batch: FlowBatch, step: int) -> Losses:
        """Return the weighted squared error of the velocity of each picture."""
        squared = self._errors(batch)
        first = (batch.times == 0).to(squared)
        logged = {
            "squared_error": Mean.of(squared.detach()),
            "squared_error_at_the_start": Mean((squared.detach() * first).sum(), first.sum()),
        }
        return Losses(squared * batch.weights.to(squared), batch.sources, logged)

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the mean squared error at the times of four steps."""
        clips = self.clips[name]
        own = share_of(len(clips), self.accelerator.process_index, self.accelerator.num_processes)
        totals = torch.zeros(len(JUDGED_TIMES), device=self.accelerator.device)
        for place in own:
            generators = [torch_generator(self.seed, "judged", clips[place].key) for _ in JUDGED_TIMES]
            batch = self._batch([(clips[place], generator) for generator in generators], JUDGED_TIMES)
            totals += self._errors(batch)
        return [float(total) / len(clips) for total in over_processes(self.accelerator, totals)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the weights to one file."""
        write_weights(path, self.refiner, torch.float32)

    def save_result(self, folder: Path, step: int) -> None:
        """Write the refiner to a folder that a base may carry."""
        write_carried(folder / REFINER_NAME, self.refiner)

    def _batch(self, drawn: Sequence[tuple[CachedExample, torch.Generator]], times: Sequence[float]) -> FlowBatch:
        decoded = torch.stack([self.pairs.decoded(example) for example, _ in drawn])
        original = torch.stack([self.pairs.original(example) for example, _ in drawn])
        noise = torch.stack([torch.randn(decoded.shape[1:], generator=generator) for _, generator in drawn])
        weights = torch.tensor([example.weight for example, _ in drawn])
        sources = tuple(example.source for example, _ in drawn)
        return FlowBatch(decoded, original, noise, torch.tensor(times), weights, sources)

    def _errors(self, batch: FlowBatch) -> Tensor:
        device = self.accelerator.device
        decoded, original, noise = (each.to(device) for each in (batch.decoded, batch.original, batch.noise))
        times = batch.times.to(device)
        data = (original - decoded) / self.refiner.spread_in(decoded)
        with self._precision():
            found = self.refiner(decoded, state_at(noise, data, times), times)
        return (found.float() - (data - noise)).square().mean(dim=(1, 2, 3))

    def _precision(self) -> AbstractContextManager[Any]:
        """Return a context that computes in bfloat16 if that is wanted; all weights are float32."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def measured_spread(pairs: Pairs, examples: Sequence[CachedExample]) -> Tensor:
    """Return the root mean square of what decoded pictures miss at each of their 256 levels, in images of -1..1.

    Levels share what is known with their neighbours.
    """
    squares, counts = (torch.zeros(LEVELS, dtype=torch.float64) for _ in range(2))
    for example in examples:
        decoded = pairs.decoded(example)
        missing, levels = (pairs.original(example) - decoded).double(), levels_of(decoded).flatten()
        squares += torch.bincount(levels, weights=missing.square().flatten(), minlength=LEVELS)
        counts += torch.bincount(levels, minlength=LEVELS)
    apart = torch.arange(LEVELS)[:, None] - torch.arange(LEVELS)
    near = (-0.5 * (apart / SMOOTHED_OVER).double().square()).exp()
    # As if one more place had been seen, of the mean of all: a level that no picture has is not divided by zero.
    mean = (near @ squares + squares.sum() / counts.sum()) / (near @ counts + 1)
    return mean.sqrt().clamp(min=LEAST_SPREAD).float()

"""Jumps along a teacher's trajectories, from one of its points to a later one: what a step adapter learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.trajectories import Level
from sdxl_mel.files.trajectories import Trajectories, Trajectory
from sdxl_mel.training.batches import Stream


@dataclass(frozen=True)
class Jumps:
    """Pairs of points of trajectories; tensors have the batch first, `segments` count from the clean end.

    `first` and `lengths`, on the CPU, are the points where jumps start and how many points they skip; those that are
    `rolled` start from where the adapter itself got to from the `noise`.
    """

    sources: tuple[str, ...]
    first: Tensor
    lengths: Tensor
    rolled: Tensor
    noise: Tensor
    start: Tensor
    end: Tensor
    at: Level
    to: Level
    timesteps: Tensor
    end_timesteps: Tensor
    segments: Tensor
    text: TextEmbeddings

    def __len__(self) -> int:
        return len(self.sources)

    def on(self, device: torch.device, dtype: torch.dtype) -> "Jumps":
        """Return the pairs on a device, the text in the dtype of the UNet."""
        names = ("noise", "start", "end", "timesteps", "end_timesteps", "segments")
        moved = {name: getattr(self, name).to(device) for name in names}
        text = TextEmbeddings(*(each.to(device, dtype) for each in self.text))
        return replace(self, **moved, at=self.at.on(device), to=self.to.on(device), text=text)


class Pair(NamedTuple):
    """A jump from one point of a trajectory to a later one; `rolled`, it starts where the adapter itself got to."""

    trajectory: Trajectory
    first: int
    last: int
    rolled: bool = False


class JumpData:
    """The trajectories that are trained on, and their points.

    `draw_steps` are the numbers of steps that share the training; the first is the one that is judged. Raises
    InputError for one that does not divide the points.
    """

    def __init__(
        self, source: Trajectories, trained: Sequence[Trajectory], *, draw_steps: Sequence[int], batch: int, seed: int
    ) -> None:
        self.source, self.trained, self.draw_steps = source, trained, tuple(draw_steps)
        self.size, self.seed = batch, seed
        self.grid, self.prediction = source.header.grid, source.header.prediction
        self.stream = Stream("trajectories", [1] * len(trained), seed)
        for steps in self.draw_steps:
            self.grid.segment(steps)

    def at(self, slot: int) -> Trajectory:
        """Return the trajectory of a slot."""
        return self.trained[self.stream[slot]]

    def slots(self, step: int, places: range) -> list[int]:
        """Return the slots of a part of a step's batch."""
        return [step * self.size + place for place in places]

    def jumps(self, pairs: Sequence[Pair]) -> Jumps:
        """Return jumps with their latents and texts."""
        found = [self.source.states(pair.trajectory, (0, pair.first, pair.last)) for pair in pairs]
        noise, start, end = (torch.stack(each) for each in zip(*found))
        texts = [self.source.text(pair.trajectory.text) for pair in pairs]
        first, last = (torch.tensor([getattr(pair, name) for pair in pairs]) for name in ("first", "last"))
        timesteps = torch.tensor([*self.grid.timesteps, 0])
        return Jumps(
            sources=tuple(pair.trajectory.prompt for pair in pairs),
            first=first,
            lengths=last - first,
            rolled=torch.tensor([pair.rolled for pair in pairs]),
            noise=noise,
            start=start,
            end=end,
            at=self.grid.level(first),
            to=self.grid.level(last),
            timesteps=timesteps[first],
            end_timesteps=timesteps[last],
            segments=(len(self.grid) - 1 - first) // self.grid.segment(self.draw_steps[0]),
            text=TextEmbeddings(*(torch.stack(part) for part in zip(*texts))),
        )

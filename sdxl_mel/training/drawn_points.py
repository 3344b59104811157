"""Points of a teacher's trajectories among the examples of a cache: what a smaller model meets when it draws."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.errors import MismatchError
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.files.trajectories import Trajectories, Trajectory, open_trajectories
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.training.batches import Batch, Stream, is_regularized, regularized_before


class DrawnPoints:
    """The trajectories that stand in a `share` of all slots: of the first n, exactly floor(n * share)."""

    def __init__(self, source: Trajectories, share: float, seed: int) -> None:
        self.source, self.share, self.seed = source, share, seed
        self.stream = Stream("drawn points", [1] * len(source), seed)

    def at(self, slot: int) -> Trajectory | None:
        """Return the trajectory of a slot, None where an example of the cache stands."""
        if not is_regularized(slot, self.share):
            return None
        return self.source.header.trajectories[self.stream[regularized_before(slot, self.share)]]

    def noisy(self, slot: int, trajectory: Trajectory) -> tuple[Tensor, int, TextEmbeddings]:
        """Return a point of a trajectory at which a UNet is called, (4, height, width), its timestep and its text."""
        grid = self.source.header.grid
        point = int(numpy_generator(self.seed, "drawn point", slot).integers(len(grid)))
        (state,) = self.source.states(trajectory, [point])
        return state, grid.timesteps[point], TextEmbeddings(*self.source.text(trajectory.text))

    def clean(self, trajectory: Trajectory) -> Tensor:
        """Return the scaled latents to which a trajectory leads, (4, height, width)."""
        (state,) = self.source.states(trajectory, [len(self.source.header.grid)])
        return state


def with_points(batch: Batch, drawn: DrawnPoints) -> Batch:
    """Return a batch in which points of trajectories stand in the slots that are theirs."""
    assert isinstance(batch.text, TextEmbeddings)
    noisy, timesteps, sources = batch.noisy.clone(), batch.timesteps.clone(), list(batch.sources)
    weights, text = batch.weights.clone(), TextEmbeddings(*(each.clone() for each in batch.text))
    for place, slot in enumerate(batch.slots):
        if trajectory := drawn.at(slot):
            noisy[place], timesteps[place], words = drawn.noisy(slot, trajectory)
            sources[place], weights[place] = trajectory.prompt, 1.0
            for each, own in zip(text, words):
                each[place] = own
    return replace(batch, sources=tuple(sources), noisy=noisy, timesteps=timesteps, weights=weights, text=text)


def open_drawn_points(folder: Path, run: RunHeader, share: float, seed: int) -> DrawnPoints:
    """Open trajectories. Raises MismatchError unless the base of a run drew them, alone, for the run's spec."""
    source = open_trajectories(folder)
    made = source.header
    require_equal(made.spec, run.spec, str(folder), "the cache")
    other = sorted(part for part, drawn_by in made.identity.items() if run.identity.get(part) != drawn_by)
    other += [f"clip skip ({made.clip_skip}, here {run.clip_skip})"] if made.clip_skip != run.clip_skip else []
    if other or made.loras:
        found = f"its {', '.join(other)} differ" if other else f"it had {len(made.loras)} LoRAs"
        raise MismatchError(
            f"{folder}: drawn by another teacher: {found}; draw them with this base, or fuse its LoRAs into a base"
        )
    return DrawnPoints(source, share, seed)

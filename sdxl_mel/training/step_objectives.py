"""What a step adapter can be trained for, by the teacher's trajectories; none of it calls the teacher.

Segments: the way from noise is cut into as many segments as there will be steps, and one straight jump from any point
must land where the guided teacher was at the end of its segment. Unrolled: the adapter draws as it will be drawn, every
step from where the step before it landed. Latent consistency (LCM-LoRA, arXiv 2311.05556): every point leads to the
same end as the one after it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.noise import uniform_variates
from sdxl_mel.diffusion.samplers import NO_GUIDANCE, Drawing
from sdxl_mel.diffusion.trajectories import Level, joining, parts_of, predicted_of, reach
from sdxl_mel.files.trajectories import Trajectory
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.training.jumps import JumpData, Jumps, Pair
from sdxl_mel.training.steps_settings import Measured, ObjectiveName

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0
"""Of the boundary condition of LCM (arXiv 2310.04378, equation 9), as diffusers' LCMScheduler has them."""
DRAWN: Mapping[ObjectiveName, Drawing] = {
    "segments": Drawing("ddim", None, NO_GUIDANCE, "trailing"),
    "unrolled": Drawing("ddim", None, NO_GUIDANCE, "trailing"),
    # LCM has a spacing of its own.
    "consistency": Drawing("lcm", None, NO_GUIDANCE),
}
"""How what an objective trains is drawn."""

Predict = Callable[[Tensor, Tensor, TextEmbeddings], Tensor]
"""(latents, timesteps, text) -> what the UNet with the adapter predicts, float32."""


class Landed(NamedTuple):
    """What came of jumps: what was found and what was wanted, (jumps, 4, height, width).

    `scale` makes of their difference that of where the jumps land, `weight` what is minimised.
    """

    found: Tensor
    wanted: Tensor
    scale: Tensor | float
    weight: Tensor | float


class Objective(Protocol):
    """What is learnt; a batch is one or several sets of jumps of the same trajectories."""

    def batch(self, step: int, places: range) -> Sequence[Jumps]:
        """Return what a part of a step's batch is."""

    def judged(self, trajectories: Sequence[Trajectory]) -> Sequence[Jumps]:
        """Return every step of drawing some trajectories."""

    def landed(self, batch: Sequence[Jumps], predict: Predict) -> Sequence[Landed]:
        """Return what came of each set."""


class Segments:
    """Jumps within a segment, a share of them, `starts`, from its first point.

    They start where the teacher was, or, a share of those of later segments, `rollouts`, where the adapter itself got
    to: without gradient.
    """

    def __init__(self, data: JumpData, starts: float, rollouts: float, measured: Measured) -> None:
        self.data, self.starts, self.rollouts, self.measured = data, starts, rollouts, measured

    def batch(self, step: int, places: range) -> Sequence[Jumps]:
        """Return jumps whose starts are spread evenly over the segments."""
        spread = uniform_variates(self.data.seed, step, places, self.data.size, True)
        slots = self.data.slots(step, places)
        return [self.data.jumps([self._pair(slot, float(place)) for slot, place in zip(slots, spread)])]

    def _pair(self, slot: int, place: float) -> Pair:
        """Return the jump of a slot; `place`, 0 to 1, says in which segment."""
        generator = numpy_generator(self.data.seed, "jump", slot)
        steps = self.data.draw_steps[int(generator.integers(len(self.data.draw_steps)))]
        length = self.data.grid.segment(steps)
        begin = min(int(place * steps), steps - 1) * length
        if begin and self.rollouts and generator.random() < self.rollouts:
            return Pair(self.data.at(slot), begin, begin + length, rolled=True)
        within = 0 if generator.random() < self.starts else int(generator.integers(length))
        return Pair(self.data.at(slot), begin + within, begin + length)

    def judged(self, trajectories: Sequence[Trajectory]) -> Sequence[Jumps]:
        """Return every step of drawing, each from where the teacher was."""
        return whole(self.data, trajectories, self.data.draw_steps[0])

    def landed(self, batch: Sequence[Jumps], predict: Predict) -> Sequence[Landed]:
        """Return what is predicted, and what would land on the end."""
        return [self._landed(jumps, predict) for jumps in batch]

    def _landed(self, jumps: Jumps, predict: Predict) -> Landed:
        start = self._rolled(jumps, predict)
        found = predict(start, jumps.timesteps, jumps.text)
        parts = joining(start, jumps.at, jumps.end, jumps.to)
        scale = reach(jumps.at, jumps.to, self.data.prediction)
        # An error of a landing grows on the way to the clean end about as the signal does.
        weight = scale / jumps.to.signal if self.measured == "landing" else 1.0
        return Landed(found, predicted_of(parts, jumps.at, self.data.prediction), scale, weight)

    @torch.no_grad()
    def _rolled(self, jumps: Jumps, predict: Predict) -> Tensor:
        """Return where the jumps start: on the trajectory, or where the adapter gets to from its noise."""
        if not bool(jumps.rolled.any()):
            return jumps.start
        grid, device = self.data.grid, jumps.start.device
        latents = torch.where(jumps.rolled.to(device).view(-1, 1, 1, 1), jumps.noise, jumps.start)
        points = torch.zeros_like(jumps.first)
        while len(some := (jumps.rolled & (points < jumps.first)).nonzero().flatten()):
            at, to = grid.level(points[some]).on(device), grid.level(points[some] + jumps.lengths[some]).on(device)
            timesteps = torch.tensor([grid.timesteps[point] for point in points[some]], device=device)
            there = some.to(device)
            text = TextEmbeddings(*(each[there] for each in jumps.text))
            predicted = predict(latents[there], timesteps, text)
            latents[there] = parts_of(latents[there], predicted, at, self.data.prediction).at(to)
            points[some] += jumps.lengths[some]
        return latents


class Unrolled:
    """Whole drawings from noise: the gradient of every landing passes through all steps before it."""

    def __init__(self, data: JumpData) -> None:
        self.data = data

    def batch(self, step: int, places: range) -> Sequence[Jumps]:
        """Return the steps of drawing some trajectories; all of a step are drawn in the same number."""
        chosen = int(numpy_generator(self.data.seed, "draw steps", step).integers(len(self.data.draw_steps)))
        trajectories = [self.data.at(slot) for slot in self.data.slots(step, places)]
        return whole(self.data, trajectories, self.data.draw_steps[chosen])

    def judged(self, trajectories: Sequence[Trajectory]) -> Sequence[Jumps]:
        """Return every step of drawing."""
        return whole(self.data, trajectories, self.data.draw_steps[0])

    def landed(self, batch: Sequence[Jumps], predict: Predict) -> Sequence[Landed]:
        """Return where every step lands."""
        landed, latents = [], batch[0].start
        for jumps in batch:
            predicted = predict(latents, jumps.timesteps, jumps.text)
            latents = parts_of(latents, predicted, jumps.at, self.data.prediction).at(jumps.to)
            landed.append(Landed(latents, jumps.end, 1.0, 1.0))
        return landed


class Consistency:
    """Every point of a trajectory leads to the same clean end as the next one."""

    def __init__(self, data: JumpData) -> None:
        self.data = data

    def batch(self, step: int, places: range) -> Sequence[Jumps]:
        """Return steps along the grid, their starts spread evenly over it."""
        length = len(self.data.grid)
        spread = uniform_variates(self.data.seed, step, places, self.data.size, True)
        firsts = [min(int(place * length), length - 1) for place in spread]
        slots = self.data.slots(step, places)
        return [self.data.jumps([Pair(self.data.at(slot), first, first + 1) for slot, first in zip(slots, firsts)])]

    def judged(self, trajectories: Sequence[Trajectory]) -> Sequence[Jumps]:
        """Return the points from which it is drawn, each with the clean end."""
        grid, steps = self.data.grid, self.data.draw_steps[0]
        firsts = range(0, len(grid), grid.segment(steps))
        return [self.data.jumps([Pair(each, first, len(grid)) for each in trajectories]) for first in firsts]

    def landed(self, batch: Sequence[Jumps], predict: Predict) -> Sequence[Landed]:
        """Return the clean latents to which a point and the one after it lead."""
        return [self._landed(jumps, predict) for jumps in batch]

    def _landed(self, jumps: Jumps, predict: Predict) -> Landed:
        found = self._end(jumps.start, jumps.at, jumps.timesteps, jumps.text, predict)
        # The clean end itself leads nowhere else.
        clean = (jumps.end_timesteps == 0).view(-1, 1, 1, 1)
        if bool(clean.all()):
            return Landed(found, jumps.end, 1.0, 1.0)
        with torch.no_grad():
            later = self._end(jumps.end, jumps.to, jumps.end_timesteps, jumps.text, predict)
        return Landed(found, torch.where(clean, jumps.end, later), 1.0, 1.0)

    def _end(self, latents: Tensor, level: Level, timesteps: Tensor, text: TextEmbeddings, predict: Predict) -> Tensor:
        """Return where a consistency model says that latents lead: equation 9 of LCM."""
        clean = parts_of(latents, predict(latents, timesteps, text), level, self.data.prediction).clean
        scaled = (timesteps.float() * TIMESTEP_SCALING).view(-1, 1, 1, 1)
        keep = SIGMA_DATA**2 / (scaled.square() + SIGMA_DATA**2)
        return keep * latents + scaled / (scaled.square() + SIGMA_DATA**2).sqrt() * clean


def whole(data: JumpData, trajectories: Sequence[Trajectory], steps: int) -> list[Jumps]:
    """Return the steps of drawing some trajectories, those of all trajectories together."""
    length = data.grid.segment(steps)
    firsts = range(0, len(data.grid), length)
    return [data.jumps([Pair(each, first, first + length) for each in trajectories]) for first in firsts]

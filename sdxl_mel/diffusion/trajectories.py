"""Trajectories from noise to clean latents: their noise levels, and the straight jumps along them of a few steps.

A latent is x = a x_0 + s eps at every noise level, a^2 + s^2 = 1. A DDIM step (arXiv 2010.02502, equation 12, without
noise) keeps x_0 and eps as they are predicted and changes the level alone, however far it goes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdxl_mel.diffusion.options import Prediction, WalkSampler
from sdxl_mel.diffusion.sampling import make_scheduler, set_steps
from sdxl_mel.errors import InputError


class Level(NamedTuple):
    """A noise level: what of the signal and what of the noise is in a latent, one for each of a batch or for all."""

    signal: Tensor
    sigma: Tensor

    def on(self, device: torch.device) -> "Level":
        """Return the same on a device."""
        return Level(self.signal.to(device), self.sigma.to(device))


class Parts(NamedTuple):
    """What a latent is made of: the clean latent and the noise."""

    clean: Tensor
    noise: Tensor

    def at(self, level: Level) -> Tensor:
        """Return the latent at a noise level."""
        return level.signal * self.clean + level.sigma * self.noise


@dataclass(frozen=True)
class Grid:
    """The points of a trajectory: `timesteps` falls from pure noise; `alphas` is abar there, and at the clean end."""

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)

    def level(self, points: Tensor) -> Level:
        """Return the noise levels at points (batch,), 0 = noise to len = clean, in shape (batch, 1, 1, 1)."""
        abar = torch.tensor(self.alphas, dtype=torch.float64)[points].view(-1, 1, 1, 1)
        return Level(abar.sqrt().float(), (1 - abar).sqrt().float())

    def ratio(self, point: int) -> float:
        """Return the length of the step from a point as a share of the one before, in the logarithm of the SNR."""
        before, here, after = (_log_snr(self.alphas[each]) for each in (point - 1, point, point + 1))
        return (after - here) / (here - before)

    def ends(self, points: Tensor, steps: int) -> Tensor:
        """Return where the jumps end that begin at points (batch,), if the whole is drawn in `steps` equal segments."""
        length = self.segment(steps)
        return (points // length + 1) * length

    def segment(self, steps: int) -> int:
        """Return the points of a segment. Raises InputError unless `steps` segments make the grid."""
        if len(self) % steps:
            fitting = ", ".join(str(each) for each in range(1, len(self)) if len(self) % each == 0)
            raise InputError(f"{steps} steps: no divisor of the {len(self)} of the trajectories; give one of {fitting}")
        return len(self) // steps


def _log_snr(alpha: float) -> float:
    return math.log(alpha / (1 - alpha)) if alpha else -math.inf


def trailing_grid(base_scheduler: Any, steps: int) -> Grid:
    """Return the grid of DDIM in `steps` trailing steps: the grids of its divisors lie on it."""
    scheduler = make_scheduler("ddim", base_scheduler, "trailing")
    timesteps = tuple(int(each) for each in set_steps(scheduler, steps, "cpu"))
    abar = scheduler.alphas_cumprod.double()
    return Grid(timesteps, (*(float(abar[each]) for each in timesteps), float(scheduler.final_alpha_cumprod)))


def beginning_at(grid: Grid, first: int | None, base_scheduler: Any) -> Grid:
    """Return a grid whose first point is moved to a timestep; None leaves it where it is.

    Raises InputError for one that is not before the second point.
    """
    if first is None:
        return grid
    if len(grid) > 1 and first <= grid.timesteps[1]:
        raise InputError(f"--first {first}: the second step is at timestep {grid.timesteps[1]}; give a larger one")
    alpha = float(base_scheduler.alphas_cumprod.double()[first])
    return Grid((first, *grid.timesteps[1:]), (alpha, *grid.alphas[1:]))


def parts_of(latents: Tensor, predicted: Tensor, level: Level, prediction: Prediction) -> Parts:
    """Return what a prediction says of latents at a noise level."""
    if prediction == "v_prediction":
        return Parts(level.signal * latents - level.sigma * predicted, level.sigma * latents + level.signal * predicted)
    return Parts((latents - level.sigma * predicted) / level.signal, predicted)


def predicted_of(parts: Parts, level: Level, prediction: Prediction) -> Tensor:
    """Return what predicts these parts at a noise level; the inverse of `parts_of`."""
    return level.signal * parts.noise - level.sigma * parts.clean if prediction == "v_prediction" else parts.noise


def joining(start: Tensor, at: Level, end: Tensor, to: Level) -> Parts:
    """Return the parts whose straight jump from the latent `start` lands on `end`.

    They solve start = a x_0 + s eps and end = a' x_0 + s' eps.
    """
    determinant = at.signal * to.sigma - at.sigma * to.signal
    clean = (to.sigma * start - at.sigma * end) / determinant
    noise = (at.signal * end - to.signal * start) / determinant
    return Parts(clean, noise)


def reach(at: Level, to: Level, prediction: Prediction) -> Tensor:
    """Return how far an error of the prediction moves the end of a jump, (batch, 1, 1, 1)."""
    turned = at.signal * to.sigma - at.sigma * to.signal
    return (turned if prediction == "v_prediction" else turned / at.signal).abs()


def walk(
    noise: Tensor,
    grid: Grid,
    prediction: Prediction,
    predict: Callable[[Tensor, Tensor], Tensor],
    sampler: WalkSampler = "ddim",
) -> Iterator[Tensor]:
    """Yield the latents (batch, 4, height, width) after every step from `noise`.

    `predict` (latents, timestep) is what the UNet predicts, guided.
    """
    latents, before = noise, None
    for point, timestep in enumerate(grid.timesteps):
        at, to = (grid.level(torch.tensor([each])).on(noise.device) for each in (point, point + 1))
        predicted = predict(latents, torch.tensor(timestep, device=noise.device))
        parts = parts_of(latents, predicted, at, prediction)
        # The last step has no end that can be extrapolated to: there the noise is 0.
        if sampler == "dpmpp_2m" and before is not None and point + 1 < len(grid):
            latents = extrapolated(latents, at, parts.clean, before, grid.ratio(point)).at(to)
        else:
            latents = parts.at(to)
        before = parts.clean
        yield latents


def extrapolated(latents: Tensor, at: Level, clean: Tensor, before: Tensor, ratio: float) -> Parts:
    """Return the parts of latents by the clean latent at the middle of a step: DPM-Solver++ 2M.

    arXiv 2211.01095, algorithm 2: `clean` and the one `before`, a step earlier, are continued by half of this step,
    which is `ratio` times as long as that one in the logarithm of the signal-to-noise ratio.
    """
    middle = clean + ratio / 2 * (clean - before)
    return Parts(middle, (latents - at.signal * middle) / at.sigma)

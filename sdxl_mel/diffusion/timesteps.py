"""Which timestep each example of a step is trained at."""

from typing import Literal

import torch

from sdxl_mel.seeding import torch_generator

Distribution = Literal["uniform", "logit-normal"]


def uniform_variates(seed: int, step: int, positions: range, batch: int, stratified: bool) -> torch.Tensor:
    """Return a number in [0, 1) for each of `positions` in the step's whole batch of `batch` examples.

    Stratified: each of the `batch` equal intervals holds exactly one of them, whoever computes which part of the batch.
    """
    own = [torch.rand((), generator=torch_generator(seed, "timestep", step, place)) for place in positions]
    drawn = torch.stack(own).double()
    if not stratified:
        return drawn
    strata = torch.randperm(batch, generator=torch_generator(seed, "strata", step))[list(positions)]
    return (strata + drawn) / batch


def timesteps_from(
    variates: torch.Tensor,
    low: int,
    high: int,
    *,
    distribution: Distribution = "uniform",
    mean: float = 0.0,
    std: float = 1.0,
) -> torch.Tensor:
    """Return integer timesteps in [low, high) by the inverse of the distribution function.

    logit-normal: sigmoid of N(mean, std) spread over the range (arXiv 2403.03206).
    """
    if distribution == "logit-normal":
        variates = torch.sigmoid(mean + std * torch.special.ndtri(variates.clamp(1e-9, 1 - 1e-9)))
    return (low + (variates * (high - low)).floor().long()).clamp(low, high - 1)

"""The noise of one sample; nothing here looks at other samples of the batch."""

import torch
from torch.nn import functional as F

from sdxl_mel.diffusion.options import Distribution
from sdxl_mel.seeding import torch_generator


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


def sample_noise(
    latent: torch.Tensor,
    generator: torch.Generator,
    *,
    offset: float = 0.0,
    random_offset: bool = False,
    adaptive_offset: float = 0.0,
    multires_iterations: int = 0,
    multires_discount: float = 0.3,
) -> torch.Tensor:
    """Return the noise of one scaled `latent` (channels, height, width): the training target for epsilon.

    Offset noise moves the whole level of a channel, which in a spectrogram is loudness; multi-resolution noise adds
    structure slow in time and frequency. Both are part of the target.
    """
    noise = torch.randn(latent.shape, generator=generator)
    if offset or adaptive_offset:
        noise = noise + _offset(latent, generator, offset, random_offset, adaptive_offset)
    if multires_iterations:
        noise = multires(noise, generator, multires_iterations, multires_discount)
    return noise


def perturbed(noise: torch.Tensor, generator: torch.Generator, gamma: float) -> torch.Tensor:
    """Return the noise that makes x_t under input perturbation (arXiv 2301.11706); the target stays `noise`."""
    return noise + gamma * torch.randn(noise.shape, generator=generator) if gamma else noise


def multires(noise: torch.Tensor, generator: torch.Generator, iterations: int, discount: float) -> torch.Tensor:
    """Return `noise` plus coarser and coarser noise, scaled to unit standard deviation over this one sample.

    Level i is drawn at size / r_i, r_i = (2 + 2 U)^i, and weighs discount^i; it ends at one pixel.
    """
    _, height, width = noise.shape
    for level in range(iterations):
        ratio = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        size = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse = torch.randn((1, len(noise), *size), generator=generator)
        noise = noise + discount**level * F.interpolate(coarse, (height, width), mode="bilinear")[0]
        if size == (1, 1):
            break
    return noise / noise.std()


def _offset(
    latent: torch.Tensor, generator: torch.Generator, strength: float, random_strength: bool, adaptive: float
) -> torch.Tensor:
    level = torch.randn((len(latent), 1, 1), generator=generator)
    share = torch.rand((), generator=generator) if random_strength else 1.0
    mean = latent.mean(dim=(1, 2), keepdim=True).abs()
    return (strength * share + adaptive * mean).clamp(min=0) * level

"""Schedules: a number that moves from start to end along the training steps or along the noise timesteps."""

import math

import torch

from sdxl_mel.diffusion.options import Axis, RateShape, Shape


def interpolate(start: float, end: float, position: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the value at `position` (0 = start, 1 = end); "constant" stays at start.

    Raises ValueError for "snr", which is no function of position alone.
    """
    match shape:
        case "constant":
            return torch.full_like(position, start)
        case "linear":
            return start + (end - start) * position
        case "cosine":
            return end + (start - end) * (1 + torch.cos(math.pi * position)) / 2
        case "exponential":
            return start * (end / start) ** position
    raise ValueError(f"shape {shape!r} needs the noise level")


def huber_delta(
    step: int,
    steps: int,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    *,
    start: float,
    end: float,
    axis: Axis,
    shape: Shape,
) -> torch.Tensor:
    """Return delta of every sample, shape (batch,), from `start` to `end`.

    axis "step": along training, start at step 0 and end at step steps - 1. axis "timestep": along the noise, at t / T;
    "snr" is (start - end) / (1 + sigma)^2 + end. Equal to sd-scripts for (constant), (exponential, start=huber_scale,
    end=huber_c * huber_scale) and (snr, start=1, end=huber_c).
    """
    if axis == "step":
        position = torch.full(timesteps.shape, step / max(steps - 1, 1), dtype=torch.float64)
        return interpolate(start, end, position, shape).to(timesteps.device, torch.float32)
    if shape == "snr":
        sigma = noise_to_signal(alphas_cumprod)[timesteps.cpu()]
        return ((start - end) / (1 + sigma).square() + end).to(timesteps.device, torch.float32)
    position = timesteps.double().cpu() / len(alphas_cumprod)
    return interpolate(start, end, position, shape).to(timesteps.device, torch.float32)


def noise_to_signal(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return sigma_t = sqrt((1 - abar_t) / abar_t) of every timestep."""
    abar = alphas_cumprod.double().cpu()
    return ((1 - abar) / abar).sqrt()


def rate_factor(step: int, steps: int, shape: RateShape, warmup: int = 0, final: float = 0.0) -> float:
    """Return the factor on the learning rate at `step`: linear warm-up, then `shape` down to `final` at the last step.

    A function of the step alone, so that a resumed run needs no state of it.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if shape == "constant":
        return 1.0
    position = torch.tensor((step - warmup) / max(steps - 1 - warmup, 1), dtype=torch.float64)
    return float(interpolate(1.0, final, position.clamp(max=1.0), shape))

"""From prediction to loss, with what is worth logging beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sdxl_mel.diffusion.losses import (
    counts_twice,
    huber_weight,
    pseudo_huber,
    signal_to_noise,
    snr_weights,
    squared_error,
)
from sdxl_mel.diffusion.schedules import huber_delta
from sdxl_mel.training.batches import Batch, Diffusion
from sdxl_mel.training.settings import LossSettings


@dataclass(frozen=True)
class Losses:
    """Of each sample, shape (batch,): the loss that is minimised, the plain squared error, and delta (0 for l2)."""

    weighted: torch.Tensor
    squared: torch.Tensor
    delta: torch.Tensor


class Objective:
    """The loss of a run of `steps` steps."""

    def __init__(self, settings: LossSettings, diffusion: Diffusion, steps: int) -> None:
        self.settings, self.alphas_cumprod, self.steps = settings, diffusion.alphas_cumprod, steps
        snr = signal_to_noise(diffusion.alphas_cumprod)
        self.weights = snr_weights(snr, settings.weighting, diffusion.prediction, settings.gamma).float()
        self.deltas = self._delta(0, torch.arange(len(snr)))

    def to(self, device: torch.device) -> "Objective":
        """Move the tables to a device."""
        self.weights, self.deltas = self.weights.to(device), self.deltas.to(device)
        return self

    def __call__(self, prediction: torch.Tensor, batch: Batch, step: int) -> Losses:
        """Return the losses of a batch at a step."""
        squared = squared_error(prediction, batch.target)
        if self.settings.kind == "l2":
            loss, delta = squared, torch.zeros_like(squared)
        else:
            delta = self.delta(step, batch.timesteps)
            loss = pseudo_huber(prediction, batch.target, delta, self.settings.huber.normalise)
            squared = squared.detach()
        weights = self.weights[batch.timesteps] * batch.weights
        return Losses(loss * weights, squared.detach(), delta)

    def delta(self, step: int, timesteps: torch.Tensor) -> torch.Tensor:
        """Return delta of each sample; tables and plain numbers, so that a GPU is not waited for."""
        if self.settings.huber.axis == "timestep":
            return self.deltas[timesteps.to(self.deltas.device)]
        value = float(self._delta(step, torch.zeros(1, dtype=torch.int64)))
        return torch.full(timesteps.shape, value, device=timesteps.device)

    def _delta(self, step: int, timesteps: torch.Tensor) -> torch.Tensor:
        huber = self.settings.huber
        return huber_delta(
            step,
            self.steps,
            timesteps,
            self.alphas_cumprod,
            start=huber.start,
            end=huber.end,
            axis=huber.axis,
            shape=huber.shape,
        )

    def pull_line(self, squared: Sequence[float]) -> str:
        """Return how hard each tenth of the timesteps pulls at first (1 = squared error), given the base's errors."""
        width = len(self.alphas_cumprod) // len(squared)
        timesteps = torch.arange(len(squared)) * width + width // 2
        pull = self.weights.cpu()[timesteps]
        if self.settings.kind == "huber":
            pull = pull * huber_weight(torch.tensor(squared).sqrt(), self.delta(0, timesteps).cpu())
        return "pull by timestep, low noise first (1 = squared error): " + " ".join(f"{each:.2f}" for each in pull)

    def warning(self) -> str | None:
        """Return what is doubtful about the settings, or None."""
        smallest = min(self.settings.huber.start, self.settings.huber.end) if self.settings.kind == "huber" else None
        if not counts_twice(self.settings.weighting, smallest):
            return None
        return (
            f"loss: weighting {self.settings.weighting!r} and Huber down to delta {smallest:g} both hold back "
            "low-noise timesteps; set loss.weighting to none unless that is meant"
        )

"""Weights of the loss by signal-to-noise ratio."""

from typing import Literal

import torch

Prediction = Literal["epsilon", "v_prediction"]
Weighting = Literal["none", "min-snr", "debiased"]

DEBIASED_MAX_SNR = 1000.0
SMALL_DELTA = 0.3
"""Below this, pseudo-Huber cuts low-noise timesteps by more than a third on its own (residuals there are about 0.3)."""


def signal_to_noise(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return SNR_t = abar_t / (1 - abar_t) of every timestep."""
    abar = alphas_cumprod.double().cpu()
    return abar / (1 - abar)


def snr_weights(snr: torch.Tensor, weighting: Weighting, prediction: Prediction, gamma: float = 5.0) -> torch.Tensor:
    """Return the weight of every timestep, given its SNR.

    min-snr (arXiv 2303.09556): min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v.
    debiased (arXiv 2310.08442): 1 / sqrt(min(SNR, 1000)) for epsilon, 1 / (SNR + 1) for v. They exclude each other.
    """
    match weighting, prediction:
        case "none", _:
            return torch.ones_like(snr)
        case "min-snr", "epsilon":
            return snr.clamp(max=gamma) / snr
        case "min-snr", "v_prediction":
            return snr.clamp(max=gamma) / (snr + 1)
        case "debiased", "epsilon":
            return snr.clamp(max=DEBIASED_MAX_SNR).rsqrt()
        case "debiased", "v_prediction":
            return 1 / (snr + 1)
    raise ValueError(f"no weighting {weighting!r} for {prediction!r}")


def counts_twice(weighting: Weighting, smallest_delta: float | None) -> bool:
    """Return whether an SNR weight meets a Huber delta so small that both suppress the low-noise timesteps."""
    return weighting != "none" and smallest_delta is not None and smallest_delta < SMALL_DELTA

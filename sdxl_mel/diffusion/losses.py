"""Losses between prediction and target, element by element; the mean over a sample is taken at the end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sdxl_mel.diffusion.options import LossName, Normalise, Prediction, Weighting

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


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of every sample, shape (batch,), in fp32."""
    return per_sample((prediction.float() - target.float()).square())


def pseudo_huber(
    prediction: torch.Tensor, target: torch.Tensor, delta: torch.Tensor, normalise: Normalise = "mse"
) -> torch.Tensor:
    """Return the mean pseudo-Huber loss of every sample, shape (batch,), in fp32; `delta` has shape (batch,).

    With residual r, "mse" is 2 delta (sqrt(r^2 + delta^2) - delta): r^2 for |r| << delta, 2 delta |r| beyond it.
    "l1" is that divided by delta: r^2 / delta for small r, 2 |r| for large r. These are sd-scripts' `huber` and
    `smooth_l1`; torch's functions of those names are something else.
    """
    residual = prediction.float() - target.float()
    delta = delta.to(residual).view(-1, *(1,) * (residual.ndim - 1))
    square = residual.square()
    # sqrt(r^2 + d^2) - d, written so that a small r does not cancel.
    excess = square / ((square + delta.square()).sqrt() + delta)
    return per_sample(2 * delta * excess if normalise == "mse" else 2 * excess)


def per_sample(elements: torch.Tensor) -> torch.Tensor:
    """Return the mean over everything but the first dimension."""
    return elements.flatten(1).mean(dim=1)


def huber_weight(residual: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return how strongly pseudo-Huber ("mse") pulls at a residual, as a share of what squared error would."""
    return delta / (residual.square() + delta.square()).sqrt()


@dataclass(frozen=True)
class Loss:
    """A loss by its two functions.

    `of_samples` (prediction, target, delta, normalise) is the loss of every sample, shape (batch,); `pull` (residual,
    delta) is its gradient as a share of that of squared error. `has_delta` says whether delta alters it.
    """

    of_samples: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Normalise], torch.Tensor]
    pull: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    has_delta: bool


LOSSES: dict[LossName, Loss] = {
    "l2": Loss(
        lambda prediction, target, delta, normalise: squared_error(prediction, target),
        lambda residual, delta: torch.ones_like(residual),
        has_delta=False,
    ),
    "huber": Loss(pseudo_huber, huber_weight, has_delta=True),
}

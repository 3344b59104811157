"""Losses between prediction and target, element by element; the mean over a sample is taken at the end."""

from typing import Literal

import torch

Normalise = Literal["mse", "l1"]


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

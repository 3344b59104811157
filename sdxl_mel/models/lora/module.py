"""The arithmetic of low-rank adaptation: W' = W + (alpha / rank) up down, and DoRA's magnitudes."""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LoraModule:
    """What one layer gets; alpha / rank scales it.

    `down` is (rank, in[, kh, kw]), `up` (out, rank[, 1, 1]). `magnitude` (out,) makes it a DoRA: the rows of W' are
    given these lengths (arXiv 2402.09353).
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Return the inner dimension."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """Return alpha / rank."""
        return self.alpha / self.rank

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of the weight that this changes."""
        return (self.up.shape[0], *self.down.shape[1:])

    def product(self) -> Tensor:
        """Return scale * up down in the shape of the weight, fp32; a DoRA's magnitudes are not in it."""
        flat = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return flat.mul_(self.scale).reshape(self.weight_shape)

    def delta(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        """Return W' - W in fp32, given the weight W in fp32 (which only a DoRA looks at) and a strength."""
        change = self.product().mul_(scale)
        if self.magnitude is None:
            return change
        changed = weight + change
        lengths = changed.flatten(1).norm(dim=1)
        wanted = self.magnitude.flatten().float() / lengths
        return changed.mul_(wanted.reshape(-1, *([1] * (weight.ndim - 1)))).sub_(weight)

    def with_alpha(self, alpha: float) -> "LoraModule":
        """Return the same change of the weight under another alpha: `up` takes up the ratio."""
        return replace(self, up=self.up * (self.alpha / alpha), alpha=alpha)

    def problem(self) -> str | None:
        """Return what is wrong with the numbers or shapes, or None."""
        if self.down.ndim not in (2, 4) or self.down.ndim != self.up.ndim or prod(self.up.shape[2:]) != 1:
            return f"down {shape_text(self.down)} and up {shape_text(self.up)} are neither linear nor convolutional"
        if self.down.shape[0] != self.up.shape[1]:
            ranks = f"rank {self.down.shape[0]} against {self.up.shape[1]}"
            return f"down {shape_text(self.down)} and up {shape_text(self.up)} do not fit together ({ranks})"
        if 0 in self.down.shape or 0 in self.up.shape:
            return f"down {shape_text(self.down)} or up {shape_text(self.up)} is empty"
        if self.magnitude is not None and self.magnitude.numel() != self.up.shape[0]:
            return f"{self.magnitude.numel()} magnitudes for {self.up.shape[0]} rows"
        if self.alpha == 0:
            return "alpha is 0, so that it changes nothing"
        return self._not_finite()

    def _not_finite(self) -> str | None:
        tensors = {"down": self.down, "up": self.up, "alpha": torch.tensor(self.alpha), "magnitude": self.magnitude}
        bad = [name for name, tensor in tensors.items() if tensor is not None and not _finite(tensor)]
        return f"{', '.join(bad)} holds NaN or infinity" if bad else None


def _finite(tensor: Tensor) -> bool:
    # NaN and infinity survive the extremes, which take an 18th of the time of isfinite over all in fp16.
    return bool(torch.stack(tensor.aminmax()).isfinite().all())


def shape_text(tensor: Tensor) -> str:
    """Return a shape as people write it: 320 x 2048."""
    return " x ".join(map(str, tensor.shape)) or "scalar"

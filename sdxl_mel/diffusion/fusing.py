"""Adding LoRAs to a weight: summed in fp32, rounded once, and how much of the change the rounding lost."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.diffusion.lora import LoraModule

CHUNK_ELEMENTS = 1 << 17
"""Rows are worked on in pieces that stay in a core's cache, in buffers that are made once."""


class Change(NamedTuple):
    """One LoRA's part in a weight."""

    module: LoraModule
    scale: float = 1.0


class Loss(NamedTuple):
    """Energies (sums of squares) of a weight's change and of what rounding made of it; they add up over weights."""

    change: float = 0.0
    error: float = 0.0
    elements: int = 0

    @property
    def fraction(self) -> float:
        """Return the root of error / change: the part of the change that is lost."""
        return (self.error / self.change) ** 0.5 if self.change > 0 else 0.0

    @property
    def change_rms(self) -> float:
        """Return the root mean square of the change."""
        return (self.change / self.elements) ** 0.5 if self.elements else 0.0

    def plus(self, other: "Loss") -> "Loss":
        """Return the energies of both."""
        return Loss(self.change + other.change, self.error + other.error, self.elements + other.elements)


def fused(weight: Tensor, changes: Sequence[Change], dtype: torch.dtype) -> tuple[Tensor, Loss]:
    """Return weight + all changes in `dtype`, and what rounding cost.

    Several LoRAs add up, each made for the weight as it was: what peft computes for several active adapters. A result
    that is not finite in `dtype` makes the error not finite.
    """
    if any(change.module.magnitude is not None for change in changes):
        return _fused_with_magnitudes(weight, changes, dtype)
    up = torch.cat([c.module.up.flatten(1).float() * (c.scale * c.module.scale) for c in changes], dim=1)
    down = torch.cat([c.module.down.flatten(1).float() for c in changes])
    flat = weight.reshape(weight.shape[0], -1)
    result = torch.empty(flat.shape, dtype=dtype)
    rows = max(1, CHUNK_ELEMENTS // flat.shape[1])
    exact, rounded = torch.empty(rows, flat.shape[1]), torch.empty(rows, flat.shape[1])
    error = 0.0
    for first in range(0, len(flat), rows):
        piece = slice(first, first + rows)
        target = result[piece]
        here, back = exact[: len(target)], rounded[: len(target)]
        here.copy_(flat[piece]).addmm_(up[piece], down)
        error += _energy(here.sub_(back.copy_(target.copy_(here))))
    change = float(((up.T @ up).double() * (down @ down.T).double()).sum())
    return result.reshape(weight.shape), Loss(max(change, 0.0), error, weight.numel())


def _fused_with_magnitudes(weight: Tensor, changes: Sequence[Change], dtype: torch.dtype) -> tuple[Tensor, Loss]:
    before = weight.float()
    change = torch.zeros_like(before)
    for part in changes:
        change += part.module.delta(before, part.scale)
    exact = before + change
    result = exact.to(dtype)
    return result, Loss(_energy(change), _energy(exact - result), weight.numel())


def _energy(tensor: Tensor) -> float:
    flat = tensor.flatten()
    return float(torch.dot(flat, flat))

"""Weights with what LoRAs change in them, and what rounding takes of the change."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.models.lora.module import Adaptation, LoraModule

CHUNK_ELEMENTS = 1 << 17
"""Rows are worked on in pieces that stay in a core's cache, in buffers that are made once."""


class Change(NamedTuple):
    """One LoRA's part in a weight."""

    module: Adaptation
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


def fuse_into(out: Tensor, weight: Tensor, changes: Sequence[Change]) -> Loss:
    """Put weight + all changes into `out`, of the same shape, and return what rounding to its dtype cost.

    Several LoRAs add up, each made for the weight as it was: what peft computes for several active adapters. A result
    that is not finite in that dtype makes the error not finite.
    """
    plain = [(each, scale) for each, scale in changes if isinstance(each, LoraModule) and each.magnitude is None]
    if len(plain) < len(changes):
        return _fuse_deltas_into(out, weight, changes)
    up = torch.cat([module.up.flatten(1).float() * (scale * module.scale) for module, scale in plain], dim=1)
    down = torch.cat([module.down.flatten(1).float() for module, _ in plain])
    flat, rounded = weight.flatten(1), out.flatten(1)
    assert rounded.data_ptr() == out.data_ptr()
    rows = max(1, CHUNK_ELEMENTS // flat.shape[1])
    exact, back = torch.empty(rows, flat.shape[1]), torch.empty(rows, flat.shape[1])
    error = 0.0
    for before, after, up_rows in zip(flat.split(rows), rounded.split(rows), up.split(rows)):
        here = exact[: len(before)].copy_(before).addmm_(up_rows, down)
        error += _energy(here.sub_(back[: len(before)].copy_(after.copy_(here))))
    change = float(((up.T @ up).double() * (down @ down.T).double()).sum())
    return Loss(max(change, 0.0), error, weight.numel())


def combined_delta(weight: Tensor, changes: Sequence[Change]) -> Tensor:
    """Return what all changes add to a weight, in fp32 on its device, each made for the weight as it was."""
    before = weight.float()
    total = torch.zeros_like(before)
    for module, scale in changes:
        total += module.on(weight.device).delta(before, scale)
    return total


def _fuse_deltas_into(out: Tensor, weight: Tensor, changes: Sequence[Change]) -> Loss:
    change = combined_delta(weight, changes)
    exact = weight.float() + change
    return Loss(_energy(change), _energy(exact - out.copy_(exact)), weight.numel())


def _energy(tensor: Tensor) -> float:
    flat = tensor.flatten()
    return float(torch.dot(flat, flat))

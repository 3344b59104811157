"""The arithmetic of low-rank adaptation: W' = W + (alpha / rank) up down, and DoRA's magnitudes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

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

    def on(self, device: torch.device) -> "LoraModule":
        """Return the same module on a device."""
        magnitude = None if self.magnitude is None else self.magnitude.to(device)
        return replace(self, down=self.down.to(device), up=self.up.to(device), magnitude=magnitude)

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
        tensors = {"down": self.down, "up": self.up, "alpha": torch.tensor(self.alpha), "magnitude": self.magnitude}
        bad = [name for name, tensor in tensors.items() if tensor is not None and not _finite(tensor)]
        return f"{', '.join(bad)} holds NaN or infinity" if bad else None


def _finite(tensor: Tensor) -> bool:
    # NaN and infinity survive the extremes, which take an 18th of the time of isfinite over all in fp16.
    return bool(torch.stack(tensor.aminmax()).isfinite().all())


def shape_text(tensor: Tensor) -> str:
    """Return a shape as people write it: 320 x 2048."""
    return " x ".join(map(str, tensor.shape)) or "scalar"


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


def fuse_into(out: Tensor, weight: Tensor, changes: Sequence[Change]) -> Loss:
    """Put weight + all changes into `out`, of the same shape, and return what rounding to its dtype cost.

    Several LoRAs add up, each made for the weight as it was: what peft computes for several active adapters. A result
    that is not finite in that dtype makes the error not finite.
    """
    if any(change.module.magnitude is not None for change in changes):
        return _fuse_magnitudes_into(out, weight, changes)
    up = torch.cat([c.module.up.flatten(1).float() * (c.scale * c.module.scale) for c in changes], dim=1)
    down = torch.cat([c.module.down.flatten(1).float() for c in changes])
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


def _fuse_magnitudes_into(out: Tensor, weight: Tensor, changes: Sequence[Change]) -> Loss:
    change = combined_delta(weight, changes)
    exact = weight.float() + change
    return Loss(_energy(change), _energy(exact - out.copy_(exact)), weight.numel())


def _energy(tensor: Tensor) -> float:
    flat = tensor.flatten()
    return float(torch.dot(flat, flat))


OVERSAMPLING = 8
POWER_ITERATIONS = 4
"""With both, the found subspace holds the best one's energy to about 1e-6 (Halko et al., arXiv 0909.4061, sec. 4.5)."""


class Cut(NamedTuple):
    """A module of lower rank, and the part of the change's energy (sum of squares) that it keeps."""

    module: LoraModule
    kept: float


def resized(module: LoraModule, rank: int) -> Cut:
    """Return the best approximation of a rank at most `rank`; alpha is kept, magnitudes too (Eckart-Young)."""
    left, left_core = torch.linalg.qr(module.up.flatten(1).double())
    right, right_core = torch.linalg.qr(module.down.flatten(1).double().T)
    u, values, v = torch.linalg.svd(left_core @ right_core.T)
    size = min(rank, len(values))
    energy = float(values.square().sum())
    kept = float(values[:size].square().sum()) / energy if energy > 0 else 1.0
    root = (values[:size] * module.scale).abs().sqrt()
    sign = 1.0 if module.scale >= 0 else -1.0
    up, down = (left @ u[:, :size]) * root * sign, root[:, None] * (v[:size] @ right.T)
    # Up and down make the change itself, which alpha / rank would scale once more.
    up *= size / module.alpha if module.alpha else 1.0
    down, up = down.float().reshape(size, *module.down.shape[1:]), up.float().reshape(-1, size, *module.up.shape[2:])
    return Cut(replace(module, down=down, up=up), kept)


def concatenated(changes: Sequence[Change]) -> LoraModule:
    """Return one module that does what all changes of a weight do together; its rank is the sum of theirs.

    Exact for plain LoRAs; a DoRA's magnitudes do not add up, so there must be none.
    """
    assert all(change.module.magnitude is None for change in changes)
    up = torch.cat([c.module.up.float() * (c.scale * c.module.scale) for c in changes], dim=1)
    down = torch.cat([c.module.down.float() for c in changes])
    return LoraModule(down=down, up=up, alpha=float(len(down)))


def extracted(change: Tensor, rank: int, generator: torch.Generator) -> Cut:
    """Return the best LoRA of `rank` for the difference of two weights (out, in[, kh, kw]), alpha = rank."""
    flat = change.flatten(1).float()
    size = min(rank, *flat.shape)
    drawn = torch.randn(flat.shape[1], min(size + OVERSAMPLING, *flat.shape), generator=generator)
    basis = torch.linalg.qr(flat @ drawn).Q  # of what the matrix does most
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(flat @ torch.linalg.qr(flat.T @ basis).Q).Q
    u, values, v = torch.linalg.svd(basis.T @ flat, full_matrices=False)
    root = values[:size].sqrt()
    up, down = (basis @ u[:, :size]) * root, root[:, None] * v[:size]
    energy = float(flat.double().square().sum())
    kept = float(values[:size].double().square().sum()) / energy if energy > 0 else 1.0
    module = LoraModule(
        down=down.reshape(size, *change.shape[1:]),
        up=up.reshape(*up.shape, *([1] * (change.ndim - 2))),
        alpha=float(size),
    )
    return Cut(module, min(kept, 1.0))


def inner(one: LoraModule, other: LoraModule) -> float:
    """Return the sum of the products of two changes' elements (magnitudes left out)."""
    ups = one.up.flatten(1).double().T @ other.up.flatten(1).double()
    downs = one.down.flatten(1).double() @ other.down.flatten(1).double().T
    return float((ups * downs).sum()) * one.scale * other.scale

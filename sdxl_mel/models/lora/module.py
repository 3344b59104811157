"""The arithmetic of adapters: W' = W + (alpha / rank) up down, its relatives of full rank, and DoRA's magnitudes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

Axis = Literal[0, 1]


class Adaptation(ABC):
    """What one weight or bias gets.

    With a `magnitude` it is a DoRA (arXiv 2402.09353): the rows of W' are given these lengths; with `axis` 1 its
    columns are, the input channels (LyCORIS' wd_on_output=False).
    """

    magnitude: Tensor | None
    axis: Axis

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Return the shape of the weight that this changes, with one column for each element of a row."""

    @abstractmethod
    def product(self) -> Tensor:
        """Return the change in fp32, in any shape with as many elements; a DoRA's magnitudes are not in it."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Return every tensor by what it is."""

    @abstractmethod
    def on(self, device: torch.device) -> Self:
        """Return the same adaptation on a device."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether it is for a weight of this shape; a 1 x 1 convolution is a matrix."""
        lengths = self.magnitude is None or self.magnitude.numel() == shape[self.axis]
        return self.size == (shape[0], prod(shape[1:])) and lengths

    def delta(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        """Return scale * (W' - W) in fp32, given the weight W in fp32 (which only a DoRA looks at) and a strength.

        So a DoRA of strength 0 is the base, and one of .5 half of its change: as in ComfyUI and LyCORIS.
        """
        change = self.product().reshape(weight.shape)
        if self.magnitude is None:
            return change.mul_(scale)
        changed = change.add_(weight)
        lengths = changed.transpose(0, self.axis).flatten(1).norm(dim=1)
        wanted = self.magnitude.flatten().float() / lengths
        shape = [-1 if axis == self.axis else 1 for axis in range(weight.ndim)]
        return changed.mul_(wanted.reshape(shape)).sub_(weight).mul_(scale)

    def not_finite(self) -> str | None:
        """Return which tensors hold NaN or infinity, or None."""
        bad = [name for name, tensor in self.tensors().items() if not _finite(tensor)]
        return f"{', '.join(bad)} holds NaN or infinity" if bad else None


@dataclass(frozen=True, eq=False)
class LoraModule(Adaptation):
    """A change of low rank; alpha / rank scales it.

    `down` is (rank, in[, kh, kw]), `up` (out, rank[, 1, 1]), `magnitude` (out,), or (in,) with `axis` 1.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None
    axis: Axis = 0

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

    @property
    def size(self) -> tuple[int, int]:
        """Return (out, in * kh * kw)."""
        return self.up.shape[0], prod(self.down.shape[1:])

    def product(self) -> Tensor:
        """Return scale * up down in the shape of the weight, fp32; a DoRA's magnitudes are not in it."""
        flat = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return flat.mul_(self.scale).reshape(self.weight_shape)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return down, up, alpha and a DoRA's magnitude."""
        magnitude = {} if self.magnitude is None else {"magnitude": self.magnitude}
        return {"down": self.down, "up": self.up, "alpha": torch.tensor(self.alpha), **magnitude}

    def on(self, device: torch.device) -> Self:
        """Return the same adaptation on a device."""
        magnitude = None if self.magnitude is None else self.magnitude.to(device)
        return replace(self, down=self.down.to(device), up=self.up.to(device), magnitude=magnitude)

    def with_alpha(self, alpha: float) -> "LoraModule":
        """Return the same change of the weight under another alpha: `up` takes up the ratio."""
        return self if alpha == self.alpha else replace(self, up=self.up * (self.alpha / alpha), alpha=alpha)

    def problem(self) -> str | None:
        """Return what is wrong with the numbers or shapes, or None."""
        if self.down.ndim not in (2, 4) or self.down.ndim != self.up.ndim or prod(self.up.shape[2:]) != 1:
            return f"down {shape_text(self.down)} and up {shape_text(self.up)} are neither linear nor convolutional"
        if self.down.shape[0] != self.up.shape[1]:
            ranks = f"rank {self.down.shape[0]} against {self.up.shape[1]}"
            return f"down {shape_text(self.down)} and up {shape_text(self.up)} do not fit together ({ranks})"
        if 0 in self.down.shape or 0 in self.up.shape:
            return f"down {shape_text(self.down)} or up {shape_text(self.up)} is empty"
        if self.magnitude is not None and self.magnitude.numel() != self.weight_shape[self.axis]:
            side = "columns" if self.axis else "rows"
            return f"{self.magnitude.numel()} magnitudes for {self.weight_shape[self.axis]} {side}"
        if self.alpha == 0:
            return "alpha is 0, so that it changes nothing"
        return self.not_finite()


Kind = Literal["LoHa", "LoKr", "full difference"]
Factor = tuple[Tensor, ...]
"""A matrix; or two whose product it is; or a core (a, b, kh, kw) with (a, out) and (b, in), in Tucker's form."""


@dataclass(frozen=True, eq=False)
class FullModule(Adaptation):
    """A change of any rank: scale times a difference itself, or two factors multiplied element by element or in blocks.

    LoHa is the Hadamard product of its factors (FedPara, arXiv 2108.06098), LoKr the Kronecker product (LyCORIS, arXiv
    2309.14859), in which the second factor's columns run through a convolution's kernel.
    """

    kind: Kind
    factors: tuple[Factor, ...]
    scale: float = 1.0
    magnitude: Tensor | None = None
    axis: Axis = 0

    @property
    def size(self) -> tuple[int, int]:
        """Return the shape of the product of the factors."""
        (rows, columns), *others = map(_size, self.factors)
        if self.kind == "LoKr":
            return rows * others[0][0], columns * others[0][1]
        return rows, columns

    def product(self) -> Tensor:
        """Return the change as a matrix in fp32; a DoRA's magnitudes are not in it."""
        first, *others = map(_multiplied, self.factors)
        whole = torch.kron(first, others[0]) if self.kind == "LoKr" else first * others[0] if others else first
        return whole * self.scale

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the tensors of every factor and a DoRA's magnitude."""
        parts = {
            f"factor {i}.{j}": part for i, factor in enumerate(self.factors, 1) for j, part in enumerate(factor, 1)
        }
        magnitude = {} if self.magnitude is None else {"magnitude": self.magnitude}
        return {**parts, "scale": torch.tensor(self.scale), **magnitude}

    def on(self, device: torch.device) -> Self:
        """Return the same adaptation on a device."""
        factors = tuple(tuple(part.to(device) for part in factor) for factor in self.factors)
        return replace(self, factors=factors, magnitude=None if self.magnitude is None else self.magnitude.to(device))

    def problem(self) -> str | None:
        """Return what is wrong with the numbers or shapes, or None."""
        for factor in self.factors:
            if not _fit_together(factor):
                shapes = " and ".join(map(shape_text, factor))
                return f"{shapes} do not fit together" if len(factor) > 1 else f"{shapes} is no shape of a weight"
        if self.kind == "LoHa" and len({_size(factor) for factor in self.factors}) > 1:
            return "its two products are of different shapes"
        return self.not_finite()


def _size(factor: Factor) -> tuple[int, int]:
    match factor:
        case (whole,):
            return whole.shape[0], prod(whole.shape[1:])
        case (left, right):
            return left.shape[0], prod(right.shape[1:])
    core, left, right = factor
    return left.shape[1], right.shape[1] * prod(core.shape[2:])


def _fit_together(factor: Factor) -> bool:
    if any(part.ndim == 0 or 0 in part.shape for part in factor) or (len(factor) > 1 and factor[-1].ndim < 2):
        return False
    match factor:
        case (_,):
            return True
        case (left, right):
            return prod(left.shape[1:]) == right.shape[0]
    core, left, right = factor
    return core.ndim == 4 and left.ndim == right.ndim == 2 and core.shape[:2] == (left.shape[0], right.shape[0])


def _multiplied(factor: Factor) -> Tensor:
    """Return a factor as a matrix in fp32."""
    exact = [part.float() for part in factor]
    match exact:
        case [whole]:
            return whole.reshape(len(whole), -1)
        case [left, right]:
            return left.flatten(1) @ right.flatten(1)
    return torch.einsum("abkl,ao,bi->oikl", *exact).flatten(1)


def _finite(tensor: Tensor) -> bool:
    # NaN and infinity survive the extremes, which take an 18th of the time of isfinite over all in fp16.
    return tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all())


def shape_text(tensor: Tensor) -> str:
    """Return a shape as people write it: 320 x 2048."""
    return " x ".join(map(str, tensor.shape)) or "scalar"


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


def concatenated(modules: Sequence[tuple[LoraModule, float]]) -> LoraModule:
    """Return one module that does what all of a weight do together, each at its strength; ranks add up.

    Exact for plain LoRAs; a DoRA's magnitudes do not add up, so there must be none.
    """
    assert all(module.magnitude is None for module, _ in modules)
    up = torch.cat([module.up.float() * (scale * module.scale) for module, scale in modules], dim=1)
    down = torch.cat([module.down.float() for module, _ in modules])
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

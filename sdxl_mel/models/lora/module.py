"""The arithmetic of adapters: W' = W + (alpha / rank) up down, its relatives of full rank, and DoRA's magnitudes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, Self

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

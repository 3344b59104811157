"""LoRA modules as matrices of low rank: resized, joined to one, extracted from a change, compared."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.models.lora.module import LoraModule

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

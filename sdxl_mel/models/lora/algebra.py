"""LoRAs as matrices of low rank: cut to a lower rank, added, compared, and found in the difference of two weights.

Everything is done on the factors, so that a product of 1280 x 10240 is never formed where a rank of 32 says it all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.models.lora.fusing import Change
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
    return Cut(_module(up, down, module, module.alpha), kept)


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
    basis = _range_of(flat, min(size + OVERSAMPLING, *flat.shape), generator)
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


def _range_of(matrix: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return an orthonormal basis (rows of the matrix, size) of what the matrix does most."""
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], size, generator=generator)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    return basis


def _module(up: Tensor, down: Tensor, like: LoraModule, alpha: float) -> LoraModule:
    """Return factors, whose product is the change itself, in the shape of `like` and with its alpha."""
    size = len(down)
    return LoraModule(
        down=down.float().reshape(size, *like.down.shape[1:]),
        up=(up * (size / alpha if alpha else 1.0)).float().reshape(-1, size, *like.up.shape[2:]),
        alpha=alpha,
        magnitude=like.magnitude,
    )

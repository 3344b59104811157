"""A LoRA beside the weights that it changes: two factors a layer, in a file of their own that a page can fill anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdxl_mel.errors import InputError
from sdxl_mel.export.external import move_out
from sdxl_mel.export.manifest import Factor
from sdxl_mel.export.runner import LORA_FILE
from sdxl_mel.models.base import Base
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.adapters import select_targets
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.scaled import ScaledLora, changes_of, in_unet

if TYPE_CHECKING:
    from onnx import ModelProto

TARGETS = ("all-linear",)
"""The layers that have factors whatever the LoRA: those that LoRAs are mostly made for."""

IN_GRAPH = "unet."
"""What the names of a UNet's weights start with in its graph."""


class Factored(nn.Module):
    """A layer and a LoRA beside it, `down` (rank, in[, kh, kw]) and `up` (out, rank[, 1, 1])."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Parameter(down, False), nn.Parameter(up, False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the changed layer's output."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return layer(x) + F.linear(F.linear(x, self.down), self.up)
        inner = F.conv2d(x, self.down, None, layer.stride, layer.padding, layer.dilation)
        return layer(x) + F.conv2d(inner, self.up)


@dataclass(frozen=True)
class Factors:
    """The layers of a UNet, by their paths, that have factors, and the rank to which all are filled up."""

    paths: tuple[str, ...]
    rank: int

    def names(self) -> tuple[str, ...]:
        """Return the names of the factors in the UNet's graph."""
        return tuple(f"{IN_GRAPH}{path}.{role}" for path in self.paths for role in ("up", "down"))


def put_factors(base: Base, loras: Sequence[ScaledLora], rank: int | None) -> Factors:
    """Put the factors of LoRAs beside the layers of a base's UNet that they change, and beside those of `TARGETS`.

    `rank` None is that of the LoRAs together. Raises InputError for a LoRA that is more than two factors a layer,
    MismatchError for one of another model.
    """
    unet = base.unet
    modules = _modules(base, loras)
    needed = max((sum(module.rank for module in each) for each in modules.values()), default=1)
    if rank is not None and rank < needed:
        raise InputError(f"--lora-rank {rank}: the LoRAs together have rank {needed}; give at least that")
    rank = rank or needed
    paths = tuple(dict.fromkeys((*select_targets(unet, "unet", TARGETS), *modules)))
    for path in paths:
        parent, _, name = path.rpartition(".")
        layer: Any = unet.get_submodule(path)
        setattr(unet.get_submodule(parent), name, Factored(layer, *_filled(layer, modules.get(path, ()), rank)))
    return Factors(paths, rank)


def _modules(base: Base, loras: Sequence[ScaledLora]) -> dict[str, list[LoraModule]]:
    """Return the low-rank changes of every layer of the UNet by its path, their scales in their alphas."""
    for path, lora, _ in loras:
        lora.require_low_rank(str(path))
        if any(module.magnitude is not None for module in lora.modules.values()):
            raise InputError(f"{path}: a DoRA, whose magnitudes are no factors; export it with --lora-mode fused")

    shapes = {name: tensor.shape for name, tensor in base.unet.named_parameters()}

    def shape_of(param: Param) -> Sequence[int] | None:
        return shapes.get(param[1])

    found: dict[str, list[LoraModule]] = {}
    for (_, name), changes in changes_of(in_unet(loras), shape_of, base.family, base.name).items():
        scaled = [(change.module, change.scale) for change in changes]
        found[name.removesuffix(".weight")] = [
            LoraModule(module.down, module.up, module.alpha * scale)
            for module, scale in scaled
            if isinstance(module, LoraModule)
        ]
    return found


def _filled(layer: Any, modules: Sequence[LoraModule], rank: int) -> tuple[Tensor, Tensor]:
    """Return `down` and `up` of a layer: one LoRA after the other, its scale in `up`, then zeros up to the rank."""
    out, inner, *kernel = layer.weight.shape
    down, up = torch.zeros(rank, inner, *kernel), torch.zeros(out, rank, *[1] * len(kernel))
    first = 0
    for module in modules:
        last = first + module.rank
        down[first:last] = module.down.reshape(module.rank, inner, *kernel)
        up[:, first:last] = (module.up * module.scale).reshape(out, module.rank, *[1] * len(kernel))
        first = last
    return down, up


def set_apart(model: "ModelProto", names: Sequence[str]) -> tuple[bytes, tuple[Factor, ...]]:
    """Move the factors of these names out of a graph; return the file that holds them, and where each lies in it."""
    content, places = move_out(model, names, LORA_FILE)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    listed = (
        Factor(name=layer.removeprefix(IN_GRAPH), up=places[f"{layer}.up"], down=places[f"{layer}.down"])
        for layer in layers
    )
    return content, tuple(listed)

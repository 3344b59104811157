"""What the tensors of one module of a LoRA file make: a change of low rank, one of full rank, or whole differences."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sdxl_mel.errors import InputError
from sdxl_mel.models.lora.module import Axis, Factor, FullModule, Kind, LoraModule
from sdxl_mel.models.lora.names import DIFFERENCES, Role

Alpha = float | Literal["rank"]
"""An alpha that a person states for a file that holds none; "rank" is a scale of 1."""
Group = dict[Role, Tensor]
"""The tensors of one module by what they are to it."""


def differences(group: Group, where: str) -> Iterator[tuple[str, FullModule]]:
    """Yield the whole differences of a module by the parameter, weight or bias, to which each is added."""
    for role, parameter in DIFFERENCES.items():
        if role in group:
            yield parameter, _sound(FullModule("full difference", ((group[role],),)), where)


def adaptation(
    group: Group, stated: float | None, alpha: Alpha | None, where: str
) -> tuple[LoraModule | FullModule | None, bool]:
    """Return what a module's other tensors make, None where there are none, and whether its alpha is not known.

    Its alpha is the file's, else the one `stated` in its settings, else `alpha`, else its rank. Raises InputError for a
    missing tensor, and shapes or numbers that cannot be.
    """
    roles = group.keys() - DIFFERENCES.keys()
    if roles <= {"alpha"} and len(roles) < len(group):
        return None, False
    if "alpha" in group and group["alpha"].numel() != 1:
        raise InputError(f"{where}: its alpha is {group['alpha'].numel()} numbers; the file is damaged")
    held = float(group["alpha"]) if "alpha" in group else stated
    unknown = held is None and alpha is None
    if held is None and alpha != "rank":
        held = alpha
    kind: Kind | None = next(
        (kind for start, kind in FULL.items() if any(role.startswith(start) for role in roles)), None
    )
    if kind is not None:
        full = _full(kind, group, held, where)
        return _sound(full, where), unknown and any(len(factor) > 1 for factor in full.factors)
    _require(group, ("down", "up"), where)
    down, up = group["down"], group["up"]
    if "mid" in group:
        down = _with_core(group["mid"], down, where)
    magnitude, axis = _magnitude(group, down.shape[1] if down.ndim > 1 else 0)
    module = LoraModule(down, up, float(down.shape[:1].numel() if held is None else held), magnitude, axis)
    return _sound(module, where), unknown


FULL: dict[str, Kind] = {"hada_": "LoHa", "lokr_": "LoKr"}


def _full(kind: Kind, group: Group, alpha: float | None, where: str) -> FullModule:
    """Return a LoHa or LoKr from its tensors, LyCORIS' names for them."""
    prefix = next(start for start, name in FULL.items() if name == kind)
    factors = tuple(_factor(group, prefix, number, where) for number in (1, 2))
    # What is given whole has no rank, and LyCORIS scales it by 1.
    ranks = [factor[-1].shape[0] for factor in factors if len(factor) > 1]
    magnitude, axis = _magnitude(group)
    return FullModule(kind, factors, 1.0 if alpha is None or not ranks else alpha / ranks[0], magnitude, axis)


def _factor(group: Group, prefix: str, number: int, where: str) -> Factor:
    whole, core = group.get(f"{prefix}w{number}"), group.get(f"{prefix}t{number}")
    if whole is not None:
        return (whole,)
    pair = tuple(f"{prefix}w{number}_{letter}" for letter in "ab")
    _require(group, pair, where)
    return (*([] if core is None else [core]), *(group[role] for role in pair))


def _require(group: Group, roles: Sequence[Role], where: str) -> None:
    missing = [role for role in roles if role not in group]
    if missing:
        raise InputError(f"{where} has no {' and no '.join(missing)} tensor; the file is incomplete")


def _with_core(core: Tensor, down: Tensor, where: str) -> Tensor:
    """Return one convolution that does what a 1 x 1 convolution and then a small one do (LyCORIS' Tucker form)."""
    if core.ndim != 4 or down.ndim != 4 or (core.shape[1], 1, 1) != (down.shape[0], *down.shape[2:]):
        raise InputError(f"{where}: its mid and down tensors do not fit together; the file is damaged")
    return torch.einsum("abkl,bi->aikl", core.float(), down.float().flatten(1))


def _magnitude(group: Group, columns: int | None = None) -> tuple[Tensor | None, Axis]:
    """Return a DoRA's magnitudes, and whether they are of rows or columns: LyCORIS' and OneTrainer's by their shape."""
    if "magnitude" in group:
        return group["magnitude"].flatten(), 0
    scale = group.get("dora_scale")
    if scale is None:
        return None, 0
    of_columns = scale.ndim > 1 and scale.shape[0] == 1 and scale.numel() == (columns or scale.numel()) > 1
    return scale.flatten(), 1 if of_columns else 0


def _sound(module: Any, where: str) -> Any:
    problem = module.problem()
    if problem:
        raise InputError(f"{where}: {problem}")
    return module

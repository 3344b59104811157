"""What the tensors of one module of a LoRA file make: a change of low rank, one of full rank, or whole differences."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sdxl_mel.errors import InputError
from sdxl_mel.models.lora.module import Axis, FullModule, Kind, LoraModule
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
    tensor that is missing or fits to no other, and for shapes or numbers that cannot be.
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
    prefix = next((prefix for prefix in FULL if any(role.startswith(prefix) for role in roles)), None)
    used = [_factor_roles(group, prefix, number) for number in "12"] if prefix else [LOW_RANK]
    _require(group, [role for factor in used for role in factor if role != "mid"], where)
    extra = roles - {"alpha", "magnitude", "dora_scale"}.union(*used)
    if extra or {"magnitude", "dora_scale"} <= roles:
        others = ", ".join(sorted(extra)) or "two kinds of magnitudes"
        raise InputError(f"{where} holds {others} beside what makes its change; the file is damaged")
    if prefix:
        factors = tuple(tuple(group[role] for role in factor) for factor in used)
        ranks = [factor[-1].shape[0] for factor in factors if len(factor) > 1 and factor[-1].ndim]
        # What is given whole has no rank, and LyCORIS scales it by 1.
        scale = held / ranks[0] if held is not None and ranks else 1.0
        return _sound(FullModule(FULL[prefix], factors, scale, *_magnitude(group)), where), unknown and bool(ranks)
    down, up = group["down"], group["up"]
    if "mid" in group:
        down = _with_core(group["mid"], down, where)
    rank = float(down.shape[:1].numel())
    magnitude = _magnitude(group, down.shape[1] if down.ndim > 1 else 0)
    return _sound(LoraModule(down, up, rank if held is None else held, *magnitude), where), unknown


FULL: dict[str, Kind] = {"hada_": "LoHa", "lokr_": "LoKr"}
LOW_RANK = ("down", "up", "mid")


def _factor_roles(group: Group, prefix: str, number: str) -> tuple[Role, ...]:
    """Return the tensors of a factor: the whole of it, or two whose product it is, with a core before them or not."""
    whole, core = f"{prefix}w{number}", f"{prefix}t{number}"
    return (whole,) if whole in group else (*([core] if core in group else []), f"{whole}_a", f"{whole}_b")


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

"""Optimizers by name; the library of one is needed only when it is built, torch included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from sdxl_mel.errors import InputError, MissingError

if TYPE_CHECKING:
    import torch

OptimizerName = Literal["adamw", "adamw-8bit", "adamw-8bit-paged", "prodigy", "schedule-free", "adafactor"]


@dataclass(frozen=True)
class Kind:
    """One optimizer: its class, the bytes of state it keeps for each trained number, and what it is built with.

    `finds_its_rate`: it estimates one step size for all parameters, so groups of different rates break it; its rate is
    about 1. `averages`: it trains at one point and is judged at another (see `state.evaluation_weights`).
    """

    module: str
    name: str
    state_bytes: float
    arguments: Callable[[Mapping[str, Any], int], Mapping[str, Any]] = lambda shared, warmup: shared
    finds_its_rate: bool = False
    averages: bool = False


OPTIMIZERS: dict[OptimizerName, Kind] = {
    "adamw": Kind("torch.optim", "AdamW", 8, lambda shared, warmup: {**shared, "fused": True}),
    "adamw-8bit": Kind("bitsandbytes.optim", "AdamW8bit", 2),
    "adamw-8bit-paged": Kind("bitsandbytes.optim", "PagedAdamW8bit", 2),
    "prodigy": Kind(
        "prodigyopt",
        "Prodigy",
        16,
        lambda shared, warmup: {
            **shared,
            "decouple": True,
            "use_bias_correction": True,
            "safeguard_warmup": warmup > 0,
        },
        finds_its_rate=True,
    ),
    "schedule-free": Kind(
        "schedulefree",
        "AdamWScheduleFree",
        8,
        lambda shared, warmup: {**shared, "warmup_steps": warmup},
        averages=True,
    ),
    # Its state is a row and a column of each matrix.
    "adafactor": Kind("torch.optim", "Adafactor", 0.1, lambda shared, warmup: {"weight_decay": shared["weight_decay"]}),
}


def build_optimizer(
    name: OptimizerName,
    groups: Sequence[dict[str, Any]],
    *,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
    epsilon: float = 1e-8,
    warmup: int = 0,
) -> "torch.optim.Optimizer":
    """Return an optimizer over parameter groups `{"params": [...], "lr": rate}`.

    Raises InputError for rates an optimizer cannot honour and MissingError for a package that is not installed.
    """
    kind = OPTIMIZERS[name]
    rates = {group["lr"] for group in groups}
    if kind.finds_its_rate and len(rates) > 1:
        raise InputError(
            f"optimizer {name!r} finds one rate for all parameters; found rates {sorted(rates)}: "
            "give the encoders the rate of the UNet and set lora_plus to 1"
        )
    shared = {"weight_decay": weight_decay, "betas": betas, "eps": epsilon}
    optimizer: Any = _class_of(kind)(groups, **kind.arguments(shared, warmup))
    if kind.averages:
        optimizer.train()
    return optimizer


def set_rates(optimizer: "torch.optim.Optimizer", factor: float) -> None:
    """Set each group's rate to `factor` times the rate it was built with."""
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
        group["lr"] = group["base_lr"] * factor


def _class_of(kind: Kind) -> Any:
    try:
        return getattr(import_module(kind.module), kind.name)
    except ImportError as error:
        package = kind.module.partition(".")[0]
        raise MissingError(f"this optimizer needs {package}: pip install 'sdxl-mel[optimizers]'") from error

"""Optimizers by name; the libraries of the rarer ones are needed only when they are asked for."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from sdxl_mel.errors import InputError, MissingError

OptimizerName = Literal["adamw", "adamw-8bit", "adamw-8bit-paged", "prodigy", "schedule-free", "adafactor"]

FINDS_ITS_RATE = ("prodigy",)
"""They estimate one step size for all parameters, so different rates per group break them; their rate is about 1."""

_PACKAGES = {"bitsandbytes": "bitsandbytes", "prodigyopt": "prodigyopt", "schedulefree": "schedulefree"}


def build_optimizer(
    name: OptimizerName,
    groups: Sequence[dict[str, Any]],
    *,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
    epsilon: float = 1e-8,
    warmup: int = 0,
) -> torch.optim.Optimizer:
    """Return an optimizer over parameter groups `{"params": [...], "lr": rate}`.

    Raises InputError for rates an optimizer cannot honour and MissingError for a package that is not installed.
    """
    rates = {group["lr"] for group in groups}
    if name in FINDS_ITS_RATE and len(rates) > 1:
        raise InputError(
            f"optimizer {name!r} finds one rate for all parameters; found rates {sorted(rates)}: "
            "give the encoders the rate of the UNet and set lora_plus to 1"
        )
    shared: dict[str, Any] = {"weight_decay": weight_decay, "betas": betas, "eps": epsilon}
    match name:
        case "adamw":
            return torch.optim.AdamW(groups, **shared, fused=True)
        case "adamw-8bit":
            return _package("bitsandbytes").optim.AdamW8bit(groups, **shared)
        case "adamw-8bit-paged":
            return _package("bitsandbytes").optim.PagedAdamW8bit(groups, **shared)
        case "prodigy":
            return _package("prodigyopt").Prodigy(
                groups, **shared, decouple=True, use_bias_correction=True, safeguard_warmup=warmup > 0
            )
        case "schedule-free":
            optimizer = _package("schedulefree").AdamWScheduleFree(groups, **shared, warmup_steps=warmup)
            optimizer.train()
            return optimizer
        case "adafactor":
            return torch.optim.Adafactor(groups, weight_decay=weight_decay)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return every parameter in the order of the groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to `factor` times the rate it was built with."""
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
        group["lr"] = group["base_lr"] * factor


@contextmanager
def evaluation_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Hold the weights to be judged and saved while the block runs.

    A schedule-free optimizer trains at one point and is judged at another; for the rest this does nothing. Going
    there and back rounds, so the training weights are put back from a copy: looking does not change the run.
    """
    switch: Any = optimizer
    if not hasattr(switch, "eval"):
        yield
        return
    weights = parameters_of(optimizer)
    kept = [weight.detach().clone() for weight in weights]
    switch.eval()
    try:
        yield
    finally:
        switch.train()
        with torch.no_grad():
            torch._foreach_copy_(weights, kept)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"this optimizer needs {name}: pip install 'sdxl-mel[optimizers]'") from error

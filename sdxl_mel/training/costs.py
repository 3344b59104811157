"""What a training step costs, counted on tensors without memory: exact for any size of model, on any machine."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sdxl_mel.diffusion.conditioning import TIME_IDS, TextEmbeddings, unet_conditions
from sdxl_mel.models.family import pooled_width
from sdxl_mel.models.lora.adapters import attach

TOKENS = 77
OPTIMIZER_BYTES = {
    "adamw": 8,
    "adamw-8bit": 2,
    "adamw-8bit-paged": 2,
    "prodigy": 16,
    "schedule-free": 8,
    "adafactor": 0.1,
}
"""State of each optimizer in bytes per trained number; Adafactor's is a row and a column per matrix."""


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""torch counts the attention of GPUs only; the tensors here pretend to be on a CPU."""


@dataclass(frozen=True)
class Costs:
    """Counts of a forward and backward pass: parameters, floating-point operations, bytes kept for the way back.

    `transient_bytes` is what recomputing the largest checkpointed block keeps on top.
    """

    base_parameters: int
    adapter_parameters: int
    flops: int
    saved_bytes: int
    transient_bytes: int = 0


def count_costs(
    unet_config: Mapping[str, Any],
    *,
    batch: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    rank: int = 32,
    targets: Sequence[str] = ("all-linear",),
    rank_patterns: Mapping[str, int] | None = None,
    checkpointing: bool = False,
) -> Costs:
    """Count a training step of a UNet with adapters on `batch` latents of height x width, without autocast.

    Attention is counted as a flash kernel keeps it: its inputs, its output, a row of numbers, never the whole matrix.
    SDXL's 722 adapters take about half a minute, so the same question is answered from memory the second time.
    """
    plain = {name: value for name, value in unet_config.items() if not name.startswith("_")}
    patterns = tuple((rank_patterns or {}).items())
    shape = batch, height, width
    return _counted(json.dumps(plain, sort_keys=True), shape, dtype, (rank, tuple(targets), patterns), checkpointing)


@cache
def _counted(
    unet_config: str, shape: tuple[int, int, int], dtype: torch.dtype, adapter: tuple[Any, ...], checkpointing: bool
) -> Costs:
    rank, targets, patterns = adapter
    with torch.device("meta"), _made_of(dtype):
        unet: Any = UNet2DConditionModel.from_config(json.loads(unet_config))
        adapters = attach({"unet": unet}, targets=targets, rank=rank, alpha=rank, rank_patterns=dict(patterns))
    with FakeTensorMode():
        _move_to_pretended_cpu(unet)
        unet.train()
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            kept, largest = _step(unet, _inputs(unet, shape, dtype), checkpointing)
    trained = sum(parameter.numel() for parameter in adapters.parameters())
    total = sum(parameter.numel() for parameter in unet.parameters())
    # A third of the work is the way forward; checkpointing does it twice.
    flops = counter.get_total_flops()
    return Costs(total - trained, trained, flops + flops // 3 if checkpointing else flops, kept, largest)


def memory_of(costs: Costs, optimizer: str, dtype: torch.dtype, averages: int = 0) -> dict[str, float]:
    """Return where the memory of a training step goes, in bytes; the context of the device is not in it."""
    per_number = 4 + 4 + OPTIMIZER_BYTES[optimizer] + 4 * averages
    return {
        "base": costs.base_parameters * dtype.itemsize,
        "adapters, gradients, optimizer": costs.adapter_parameters * per_number,
        "activations": costs.saved_bytes + costs.transient_bytes,
    }


def _inputs(unet: Any, shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    batch, height, width = shape
    pooled = torch.empty(batch, pooled_width(unet.config), dtype=dtype)
    text = TextEmbeddings(torch.empty(batch, TOKENS, unet.config.cross_attention_dim, dtype=dtype), pooled)
    return {
        "sample": torch.empty(batch, unet.config.in_channels, height, width, dtype=dtype),
        "timestep": torch.zeros(batch, dtype=torch.int64),
        **unet_conditions(text, torch.empty(batch, TIME_IDS) if pooled.numel() else None),
    }


def _loss(unet: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    prediction = unet(**inputs).sample
    return F.mse_loss(prediction.float(), torch.empty(prediction.shape))


def _step(unet: Any, inputs: Mapping[str, Any], checkpointing: bool) -> tuple[int, int]:
    """Go forward and back; returns the bytes kept in between, and those of the largest checkpointed block."""
    weights = {_place(parameter) for parameter in unet.parameters()}
    outside: dict[int, torch.Tensor] = {}
    largest = 0

    def measured(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal largest
        outside.update((_place(each), each) for each in arguments if isinstance(each, torch.Tensor))
        inside: dict[int, torch.Tensor] = {}
        with _collected(inside):
            result = function(*arguments)
        largest = max(largest, _bytes(inside, weights | set(outside)))
        return result

    if checkpointing:
        unet.enable_gradient_checkpointing(measured)
    with _collected(outside):
        loss = _loss(unet, inputs)
    loss.backward()
    return _bytes(outside, weights), largest


def _move_to_pretended_cpu(model: nn.Module) -> None:
    """Replace tensors of the meta device, for which torch has no flash attention, by pretended ones of the CPU."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                pretended = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(pretended, requires_grad=parameter.requires_grad)


@contextmanager
def _made_of(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _collected(into: dict[int, torch.Tensor]) -> Iterator[None]:
    """Note every tensor that is kept for the backward pass, once for each piece of memory."""

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        into[_place(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def _place(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensors: Mapping[int, torch.Tensor], without: set[int]) -> int:
    return sum(each.untyped_storage().nbytes() for place, each in tensors.items() if place not in without)

"""What a training step costs, counted on tensors without memory: exact for any size of model, on any machine.

Most of a UNet is one kind of block many times (70 in SDXL, of two kinds): each kind is run once and counted again.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from sdxl_mel.diffusion.conditioning import TIME_IDS, TextEmbeddings, unet_conditions
from sdxl_mel.models.family import pooled_width
from sdxl_mel.training.optimizers import OPTIMIZERS, OptimizerName

TOKENS = 77
BLOCK = "BasicTransformerBlock"


@dataclass(frozen=True)
class Costs:
    """Counts of a forward and backward pass: parameters, floating-point operations, bytes kept for the way back.

    `forward_flops` is the part of the operations that one way forward takes, `transient_bytes` what recomputing the
    largest checkpointed block keeps on top.
    """

    base_parameters: int
    adapter_parameters: int
    flops: int
    forward_flops: int
    saved_bytes: int
    transient_bytes: int = 0


def count_costs(
    unet: Any, *, batch: int, height: int, width: int, dtype: torch.dtype, checkpointing: bool = False
) -> Costs:
    """Count a training step of a UNet with adapters on `batch` latents of height x width, without autocast.

    The UNet may lie on any device and is left as it is. Attention is counted as a flash kernel keeps it: its inputs,
    its output, a row of numbers, never the whole matrix.
    """
    shapes = {
        name: torch.empty(each.shape, dtype=each.dtype, device="meta", requires_grad=each.requires_grad)
        for name, each in unet.named_parameters()
    }

    def predict() -> Tensor:
        inputs = empty_inputs(unet.config, (batch, height, width), dtype)
        prediction: Tensor = functional_call(unet, shapes, kwargs=inputs).sample
        return prediction

    return count_pass(unet, shapes, predict, checkpointing=checkpointing)


def count_pass(
    model: Any, shapes: Mapping[str, Tensor], run: Callable[[], Tensor], *, checkpointing: bool = False
) -> Costs:
    """Count what `run` does with a model of diffusers, and the way back from the mean square of what it returns.

    `shapes` are the parameters with which it computes, on the meta device.
    """
    trained = sum(parameter.numel() for parameter in shapes.values() if parameter.requires_grad)
    kept, operations = _Kept(shapes.values()), _Operations()
    with (
        torch.device("meta"),
        _checkpointed_by(model, kept.checkpointed if checkpointing else None),
        torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor),
        operations,
        _counted_once(model, kept, operations),
    ):
        prediction = run()
        F.mse_loss(prediction.float(), torch.empty(prediction.shape))
    forward, back = operations.forward, operations.back
    # Checkpointing takes the way forward twice.
    flops = forward + back + forward * checkpointing
    total = sum(parameter.numel() for parameter in shapes.values())
    return Costs(total - trained, trained, flops, forward, kept.bytes, kept.largest)


def memory_of(costs: Costs, optimizer: OptimizerName, dtype: torch.dtype, averages: int = 0) -> dict[str, float]:
    """Return where the memory of a training step goes, in bytes; the context of the device is not in it."""
    per_number = 4 + 4 + OPTIMIZERS[optimizer].state_bytes + 4 * averages
    return {
        "base": costs.base_parameters * dtype.itemsize,
        "adapters, gradients, optimizer": costs.adapter_parameters * per_number,
        "activations": costs.saved_bytes + costs.transient_bytes,
    }


def empty_inputs(config: Mapping[str, Any], shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Return arguments of a UNet for (batch, height, width) latents, of any content, on the device of the context."""
    batch, height, width = shape
    pooled = torch.empty(batch, pooled_width(config), dtype=dtype)
    text = TextEmbeddings(torch.empty(batch, TOKENS, config["cross_attention_dim"], dtype=dtype), pooled)
    return {
        "sample": torch.empty(batch, config["in_channels"], height, width, dtype=dtype),
        "timestep": torch.zeros(batch, dtype=torch.int64),
        **unet_conditions(text, torch.empty(TIME_IDS) if pooled.numel() else None),
    }


class _Kept:
    """The tensors kept for the backward pass beside the weights, each piece of memory once."""

    def __init__(self, weights: Any) -> None:
        self._weights = {_place(weight): weight for weight in weights}
        self._tensors: dict[int, Tensor] = {}
        self.again = 0
        self.largest = 0

    @property
    def bytes(self) -> int:
        """Return the bytes of all that is kept now, `again` those of blocks that were not run."""
        return self.again + sum(tensor.untyped_storage().nbytes() for tensor in self._tensors.values())

    def __contains__(self, tensor: Tensor) -> bool:
        return _place(tensor) in self._tensors

    def add(self, tensor: Tensor) -> Tensor:
        """Keep a tensor."""
        if (place := _place(tensor)) not in self._weights:
            self._tensors[place] = tensor
        return tensor

    def checkpointed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a block: its inputs are kept, and while it is computed again what it keeps itself."""
        for argument in arguments:
            if isinstance(argument, Tensor):
                self.add(argument)
        outside, again, self._tensors, self.again = self._tensors, self.again, {}, 0
        result = function(*arguments)
        self._tensors = {place: each for place, each in self._tensors.items() if place not in outside}
        self.largest = max(self.largest, self.bytes)
        self._tensors, self.again = outside, again
        return result


class _Operations(TorchFunctionMode):
    """Counts the floating-point operations of products, forward and back."""

    forward = 0
    back = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            query, key, value = args[:3] if len(args) > 2 else (kwargs[name] for name in ("query", "key", "value"))
            result = _FlashAttention.apply(query, key, value)
            shapes = query.shape, key.shape, value.shape
            self.forward += sdpa_flop_count(*shapes)
            self.back += sdpa_backward_flop_count(result.shape, *shapes) if result.requires_grad else 0
            return result
        if function is F.group_norm:
            return _GroupNorm.apply(*args[:2], *(args[2:] or (kwargs["weight"], kwargs["bias"])))
        result = function(*args, **(kwargs or {}))
        if function is F.linear or function is F.conv2d:
            product = 2 * result.numel() * math.prod(args[1].shape[1:])
            self.forward += product
            # One product for each side that wants a gradient: a frozen weight wants none.
            self.back += product * (args[0].requires_grad + args[1].requires_grad)
        return result


class _FlashAttention(torch.autograd.Function):
    """What a flash kernel keeps; it computes nothing."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, tokens, _ = query.shape
        # The kernels write the heads of a token side by side, so that joining them copies nothing.
        result = query.new_empty((batch, tokens, heads, value.shape[-1])).transpose(1, 2)
        logsumexp = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        context.save_for_backward(query, key, value, result, logsumexp)
        return result


class _GroupNorm(torch.autograd.Function):
    """What a group norm keeps; on tensors without memory torch works it out operation by operation, 4 ms each."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, groups: int, weight: Tensor | None, *_: Any) -> Tensor:
        mean, deviation = inputs.new_empty((2, len(inputs), groups)).unbind()
        context.save_for_backward(inputs, weight, mean, deviation)
        return torch.empty_like(inputs, memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class _Count:
    """What a call of a block cost: operations, bytes kept beside its arguments, which arguments it kept, its result."""

    forward: int
    back: int
    own_bytes: int
    arguments: tuple[int, ...]
    result: Tensor


@contextmanager
def _counted_once(unet: nn.Module, kept: _Kept, operations: _Operations) -> Iterator[None]:
    """Run one block of each kind and size, and count the others from it, while the block runs."""
    known: dict[Any, _Count] = {}

    def instead_of(block: nn.Module) -> Callable[..., Any]:
        structure, real = _structure(block), block.forward

        def forward(*arguments: Any, **named: Any) -> Tensor:
            flat = tree_leaves((arguments, named))
            tensors = [each for each in flat if isinstance(each, Tensor)]
            key = structure, tuple((each.shape, each.dtype, each.requires_grad) for each in tensors), len(flat)
            if (count := known.get(key)) is None:
                before, started = kept.bytes, (operations.forward, operations.back)
                held = [tensor in kept for tensor in tensors]
                result = real(*arguments, **named)
                took = [index for index, tensor in enumerate(tensors) if tensor in kept]
                new = sum(tensors[index].untyped_storage().nbytes() for index in took if not held[index])
                known[key] = _Count(
                    operations.forward - started[0],
                    operations.back - started[1],
                    kept.bytes - before - new,
                    tuple(took),
                    result,
                )
                return result
            operations.forward += count.forward
            operations.back += count.back
            kept.again += count.own_bytes
            for index in count.arguments:
                kept.add(tensors[index])
            return torch.empty_like(count.result).detach().requires_grad_(count.result.requires_grad)

        return forward

    blocks = [module for module in unet.modules() if type(module).__name__ == BLOCK]
    for block in blocks:
        block.forward = instead_of(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _structure(block: nn.Module) -> str:
    """Return what decides the costs of a block: the kinds, plain attributes and shapes of all its modules."""
    plain = (bool, int, float, str, tuple)
    return repr(
        [
            (
                type(module).__name__,
                [(name, value) for name, value in vars(module).items() if isinstance(value, plain)],
                [(tuple(each.shape), each.dtype, each.requires_grad) for each in module.parameters(recurse=False)],
            )
            for module in block.modules()
        ]
    )


@contextmanager
def _checkpointed_by(unet: Any, function: Callable[..., Any] | None) -> Iterator[None]:
    """Let a UNet checkpoint its blocks by `function` while the block runs, or not at all."""
    before, training = unet.is_gradient_checkpointing, unet.training
    if not training:
        unet.train()
    if function is not None:
        unet.enable_gradient_checkpointing(function)
    elif before:
        unet.disable_gradient_checkpointing()
    try:
        yield
    finally:
        if not training:
            unet.eval()
        if before:
            unet.enable_gradient_checkpointing()
        elif function is not None:
            unet.disable_gradient_checkpointing()


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

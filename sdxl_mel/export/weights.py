"""How the weights of an ONNX model are stored: float32, float16, or int8 by channel; all are computed in float32."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.errors import InputError
from sdxl_mel.export.options import Weights

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    Replacement = tuple[list[TensorProto], list[NodeProto]]
    """The tensors in which a weight is stored, and what makes it of them."""

SMALLEST_HALF = 64
"""Smaller tensors stay float32: a cast of them costs more bytes than it saves."""
SMALLEST_INT8 = 20_000
"""Smaller tensors are stored as float16: a thirtieth of the bytes, and all norms and biases."""
LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_INT8 = 127
KERNEL = 4
"""Dimensions of the weights of a convolution."""


class Use(NamedTuple):
    """A place where a tensor enters a graph: the operator, and which of its inputs it is."""

    node: "NodeProto"
    place: int


def store(model: "ModelProto", weights: Weights, apart: Collection[str] = (), halves: Collection[str] = ()) -> None:
    """Change how a model's weights are stored.

    The tensors named in `apart` stay float32, and those in `halves` are float16 where others are int8. Raises
    InputError for a weight that float16 cannot hold.
    """
    from onnx import TensorProto, numpy_helper

    if weights == "fp32":
        return
    graph, nodes = model.graph, []
    axes = int8_axes(model, apart) if weights == "int8" else {}
    for tensor in list(graph.initializer):
        name = tensor.name
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST_HALF or name in apart:
            continue
        values = numpy_helper.to_array(tensor)
        if name in axes and name not in halves:
            (stored, *others), unpacking = _as_int8(name, values, axes[name])
        else:
            (stored, *others), unpacking = _as_half(name, values)
        tensor.CopyFrom(stored)
        graph.initializer.extend(others)
        nodes += unpacking
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def int8_axes(model: "ModelProto", apart: Collection[str] = ()) -> dict[str, int]:
    """Return the weights that int8 is for, by name, each with the axis of its channels."""
    uses = _uses(model)
    large = (
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == tensor.FLOAT and np.prod(tensor.dims) >= SMALLEST_INT8 and tensor.name not in apart
    )
    axes = {tensor.name: _channel_axis(uses[tensor.name], len(tensor.dims)) for tensor in large}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _as_half(name: str, values: Float) -> "Replacement":
    from onnx import TensorProto, helper, numpy_helper

    if np.abs(values).max(initial=0.0) > LARGEST_HALF:
        raise InputError(f"{name}: a weight is beyond float16's {LARGEST_HALF:g}; export with --weights fp32")
    stored = numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)]


def _as_int8(name: str, values: Float, axis: int) -> "Replacement":
    """Store a weight as int8; the matrix of a product lies turned.

    onnxruntime has an operator of its own for products of int8 weights, which it takes where nothing lies between; in
    float32 that is slower than to make float32 numbers row by row, and their product after that.
    """
    from onnx import helper, numpy_helper

    numbers, scales = quantised(values, axis)
    turned = values.ndim == 2 and axis == 1
    stored = numpy_helper.from_array(np.ascontiguousarray(numbers.T) if turned else numbers, f"{name}.int8")
    scale = numpy_helper.from_array(scales, f"{name}.scale")
    unpacked = f"{name}.rows" if turned else name
    nodes = [helper.make_node("DequantizeLinear", [stored.name, scale.name], [unpacked], axis=0 if turned else axis)]
    return [stored, scale], [
        *nodes,
        helper.make_node("Transpose", [unpacked], [name], perm=[1, 0]),
    ] if turned else nodes


def quantised(values: Float, axis: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int8]], Float]:
    """Return weights as int8, and a scale for every channel: symmetric, so that 0 stays 0.

    Stored times scale is within half a scale of the weight.
    """
    others = tuple(each for each in range(values.ndim) if each != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.maximum(largest / np.float32(LARGEST_INT8), np.finfo(np.float32).tiny)
    return np.rint(values / scales).astype(np.int8), scales.reshape(-1)


def _uses(model: "ModelProto") -> Mapping[str, Sequence[Use]]:
    uses: dict[str, list[Use]] = defaultdict(list)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            uses[name].append(Use(node, place))
    return uses


def _channel_axis(uses: Sequence[Use], dimensions: int) -> int | None:
    """Return the axis of a weight's outputs, the same wherever it is used; None for what is no matrix of weights."""
    axes = {_axis_in(use, dimensions) for use in uses}
    return axes.pop() if len(axes) == 1 else None


def _axis_in(use: Use, dimensions: int) -> int | None:
    match use.node.op_type, use.place:
        case ("Conv", 1) | ("Gather", 0):
            return 0
        case "ConvTranspose", 1:
            return 1
        case "Reshape", 0:  # A kernel, channels first, of which another one is made.
            return 0 if dimensions == KERNEL else None
        case "MatMul", 1:
            return dimensions - 1
        case "Gemm", 1:
            return 0 if _attribute(use.node, "transB") else 1
    return None


def _attribute(node: "NodeProto", name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)

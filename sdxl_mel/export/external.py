"""Tensors of a graph in a file of their own: a page can fill it anew, and opens large ones in less memory."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

LEAST_BYTES = 1024
"""Smaller tensors stay in the graph."""


class External(NamedTuple):
    """The content of a file, and where each tensor lies in it: (offset in bytes, shape)."""

    content: bytes
    places: Mapping[str, tuple[int, tuple[int, ...]]]


def move_out(model: "ModelProto", names: Iterable[str], location: str) -> External:
    """Move tensors out of a graph, which reads them from a file of this name from now on."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    content, places = bytearray(), {}
    for name in names:
        values = numpy_helper.to_array(stored[name])
        places[name] = (len(content), values.shape)
        _refer(stored[name], location, len(content), values.nbytes)
        content += values.tobytes()
    return External(bytes(content), places)


def large_tensors(model: "ModelProto") -> list[str]:
    """Return the names of a graph's own large tensors, wide numbers first, so that all are aligned."""
    from onnx import TensorProto, helper

    large: list[tuple[int, int, str]] = []
    for tensor in model.graph.initializer:
        width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_location != TensorProto.EXTERNAL and len(tensor.raw_data) >= LEAST_BYTES:
            large.append((-width, len(large), tensor.name))
    return [name for _, _, name in sorted(large)]


def _refer(tensor: "TensorProto", location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = type(tensor).EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))

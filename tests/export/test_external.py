"""Tensors in a file of their own: the graph is the same function of what the file holds."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdxl_mel.export.external import LEAST_BYTES, large_tensors, move_out
from sdxl_mel.export.runner import Session
from sdxl_mel.export.weights import store
from sdxl_mel.seeding import numpy_generator


def product(matrix: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "matrix"], ["m"]), helper.make_node("Add", ["m", "bias"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", matrix.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", matrix.shape[1]])],
        [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(matrix[0], "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_large_tensors_move_out_and_may_be_exchanged() -> None:
    random = numpy_generator(0, "external")
    matrix, x = (np.float32(random.normal(size=shape)) for shape in ((150, 280), (3, 150)))
    whole, apart = product(matrix), product(matrix)
    for model in (whole, apart):
        store(model, "int8")
    names = large_tensors(apart)
    assert names == ["matrix.scale", "matrix.int8"]
    content, places = move_out(apart, names, "some.weights")
    assert places == {"matrix.scale": (0, (280,)), "matrix.int8": (4 * 280, (280, 150))}
    graph = apart.SerializeToString()
    assert len(graph) < 2 * LEAST_BYTES < len(content) == 4 * 280 + 150 * 280
    (wanted,) = Session(whole.SerializeToString())({"x": x})
    (found,) = Session(graph, {"some.weights": content})({"x": x})
    assert np.array_equal(found, wanted)
    (nothing,) = Session(graph, {"some.weights": bytes(len(content))})({"x": x})
    assert np.array_equal(nothing, np.tile(matrix[0].astype(np.float16).astype(np.float32), (3, 1)))
    assert large_tensors(apart) == []

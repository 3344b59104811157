"""Stored weights: float16 is exactly float16, int8 is within half a step, and the graph stays the same function."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from onnx import TensorProto, helper, numpy_helper

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.export.checks import MOST_PICTURE_ERROR, graph_error, picture_error
from sdxl_mel.export.graphs import Part
from sdxl_mel.export.runner import Session
from sdxl_mel.export.weights import quantised, store
from sdxl_mel.seeding import numpy_generator

RANDOM = numpy_generator(0, "weights")
TENSORS = {
    "kernel": RANDOM.normal(0, 0.05, (64, 48, 3, 3)).astype(np.float32),
    "bias": RANDOM.normal(0, 0.1, 64).astype(np.float32),
    "matrix": RANDOM.normal(0, 0.05, (64, 400)).astype(np.float32),
    "turned": RANDOM.normal(0, 0.05, (100, 400)).astype(np.float32),
    "apart": RANDOM.normal(0, 0.05, (100, 400)).astype(np.float32),
    "wider": RANDOM.normal(0, 0.05, (48, 48, 4, 4)).astype(np.float32),
}


def small_model(tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Convolutions, a product and a Gemm with a transposed matrix, twice: all ways in which weights enter."""
    nodes = [
        helper.make_node("ConvTranspose", ["x", "wider"], ["w"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["w", "kernel", "bias"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["m"]),
        helper.make_node("Gemm", ["m", "turned"], ["g"], transB=1),
        helper.make_node("Gemm", ["m", "apart"], ["h"], transB=1),
        helper.make_node("Add", ["g", "h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 48, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 100])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def output(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    inputs = {"x": np.float32(numpy_generator(1, "x").normal(size=(1, 48, 6, 6)))}
    return Session(model.SerializeToString())(inputs)[0]


def test_fp16_draws_exactly_what_rounded_weights_draw() -> None:
    stored = small_model(TENSORS)
    store(stored, "fp16", apart=["apart"])
    rounded = {n: v if n == "apart" else v.astype(np.float16).astype(np.float32) for n, v in TENSORS.items()}
    assert np.array_equal(output(stored), output(small_model(rounded)))
    sizes = {tensor.name: numpy_helper.to_array(tensor).itemsize for tensor in stored.graph.initializer}
    halves = ("kernel", "bias", "matrix", "turned", "wider")
    assert sizes == {f"{name}.fp16": 2 for name in halves} | {"apart": 4}


def test_int8_is_a_quarter_and_near() -> None:
    exact, stored = small_model(TENSORS), small_model(TENSORS)
    store(stored, "int8", apart=["apart"])
    bytes_of = {t.name: numpy_helper.to_array(t).nbytes for t in stored.graph.initializer}
    assert bytes_of["kernel.int8"] == TENSORS["kernel"].size
    assert bytes_of["turned.scale"] == 4 * 100
    assert bytes_of["bias.fp16"] == 2 * 64
    assert bytes_of["apart"] == 4 * TENSORS["apart"].size
    difference = output(stored) - output(exact)
    assert 0 < np.sqrt(np.mean(difference**2)) < 0.02 * output(exact).std()


def test_int8_is_the_number_times_the_scale_of_its_channel() -> None:
    """What the graph multiplies by is what `quantised` says, also where it enters by its rows."""
    stored, axes = small_model(TENSORS), {"kernel": 0, "matrix": 1, "turned": 0, "apart": 0, "wider": 1}
    store(stored, "int8")
    rounded = dict(TENSORS, bias=TENSORS["bias"].astype(np.float16).astype(np.float32))
    for name, axis in axes.items():
        numbers, scales = quantised(TENSORS[name], axis)
        rounded[name] = numbers * scales.reshape([-1 if each == axis else 1 for each in range(numbers.ndim)])
    assert np.abs(output(stored) - output(small_model(rounded))).max() <= 1e-6
    kinds = Counter(node.op_type for node in stored.graph.node)
    assert kinds["DequantizeLinear"] == len(axes)


def test_some_weights_may_be_halves() -> None:
    stored = small_model(TENSORS)
    store(stored, "int8", halves=["matrix"])
    kept = {
        tensor.name.partition(".")[0]: tensor.name for tensor in stored.graph.initializer if "scale" not in tensor.name
    }
    assert (kept["matrix"], kept["turned"]) == ("matrix.fp16", "turned.int8")


def test_fp32_changes_nothing() -> None:
    model = small_model(TENSORS)
    store(model, "fp32")
    assert model == small_model(TENSORS)


def test_a_weight_that_float16_cannot_hold_is_named() -> None:
    model = small_model(TENSORS | {"bias": np.full(64, 1e6, np.float32)})
    with pytest.raises(InputError, match=r"bias: .*--weights fp32"):
        store(model, "int8")


@given(
    hn.arrays(np.float32, (5, 7), elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)),
    st.sampled_from([0, 1]),
)
def test_int8_is_within_half_a_step_of_every_weight(values: np.ndarray, axis: int) -> None:
    stored, scales = quantised(values, axis)
    shape = [-1 if each == axis else 1 for each in range(2)]
    back = stored * scales.reshape(shape).astype(np.float64)
    assert np.all(np.abs(back - values) <= scales.reshape(shape) * 0.5001)
    assert np.all(stored[values == 0] == 0)


def test_a_graph_that_is_off_is_refused() -> None:
    layer = torch.nn.Linear(4, 4)
    part = Part("layer", layer.eval(), {"x": torch.ones(2, 4)}, {}, ("y",))

    def model(shift: float) -> Session:
        weights = {"w": layer.weight.detach().numpy() + np.float32(shift), "b": layer.bias.detach().numpy()}
        graph = helper.make_graph(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return Session(made.SerializeToString())

    assert graph_error(part, model(0.0)) <= 1e-6
    with pytest.raises(MismatchError, match="layer as ONNX is off by"):
        graph_error(part, model(0.01))
    with pytest.raises(MismatchError, match="nan"):
        graph_error(part, model(np.nan))


def test_weights_that_change_a_picture_too_much_are_refused() -> None:
    exact = np.zeros((4, 4, 1), np.float32)
    assert picture_error(exact + np.float32(0.003), exact, "int8") == pytest.approx(0.003)
    with pytest.raises(MismatchError, match="take fp16"):
        picture_error(exact + np.float32(1.5 * MOST_PICTURE_ERROR["int8"]), exact, "int8")

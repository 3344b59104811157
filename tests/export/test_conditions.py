"""A UNet's graph in two: together they are the same function, and the second has the steps' own inputs."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from sdxl_mel.export.conditions import split_conditions
from sdxl_mel.export.runner import ConditionedUnet, Session
from sdxl_mel.seeding import numpy_generator


def small_unet() -> ModelProto:
    """Attention of latents to a text; one matrix, a cast of halves, is used by both."""
    generator = numpy_generator(0, "conditions")
    halves = generator.normal(size=(6, 6)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["halves"], ["matrix"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["hidden", "matrix"], ["keys"]),
        helper.make_node("Transpose", ["keys"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["latents", "matrix"], ["queries"]),
        helper.make_node("Shape", ["hidden"], ["sizes_of_text"]),
        helper.make_node("Add", ["queries", "timestep"], ["timed"]),
        helper.make_node("MatMul", ["timed", "turned"], ["scores"]),
        helper.make_node("MatMul", ["scores", "keys"], ["found"]),
        helper.make_node("Mul", ["found", "pooled"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["rows"]),
        helper.make_node("Cast", ["sizes_of_text"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["counts"], ["most"], keepdims=0),
        helper.make_node("Div", ["rows", "most"], ["noise"]),
    ]
    shapes = {"latents": ["b", "w", 6], "timestep": [1], "hidden": ["b", "t", 6], "pooled": ["b", 1, 6]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["rows", 6])]
    weights = [numpy_helper.from_array(halves, "halves"), numpy_helper.from_array(np.array([-1, 6]), "flat")]
    graph = helper.make_graph(nodes, "unet", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_two_graphs_are_the_same_function() -> None:
    whole, unet = small_unet(), small_unet()
    conditions = split_conditions(unet)
    assert {value.name for value in conditions.graph.output} == {"keys", "turned", "most"}
    assert {value.name for value in unet.graph.input} == {"latents", "timestep", "pooled", "keys", "turned", "most"}
    one = Session(whole.SerializeToString())
    two = ConditionedUnet(*(Session(each.SerializeToString()) for each in (conditions, unet)))
    generator = numpy_generator(1, "conditions")
    for batch, width, tokens in ((1, 4, 3), (2, 8, 5)):
        shapes = {"latents": (batch, width, 6), "timestep": (1,), "hidden": (batch, tokens, 6), "pooled": (batch, 1, 6)}
        inputs = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        assert np.array_equal(one(inputs)[0], two(inputs)[0])

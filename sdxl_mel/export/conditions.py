"""A UNet's graph in two: what stays as it is from step to step of a drawing is computed once, before them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

CHANGING = frozenset(("latents", "timestep"))
"""The inputs of a UNet that each step has anew."""


def split_conditions(model: "ModelProto") -> "ModelProto":
    """Take out of a UNet's graph what depends on neither latents nor timestep; return it as a graph of its own.

    What that one gives, above all the keys and values of the text, the UNet takes in place of the conditions.
    """
    from onnx import helper, shape_inference

    graph = model.graph
    made = _constant_over_steps(model)
    later = [node for node in graph.node if made.isdisjoint(node.output)]
    later, needed = _needed(later, [value.name for value in graph.output])
    types = {value.name: value for value in shape_inference.infer_shapes(model).graph.value_info}
    passed = [types[name] for name in dict.fromkeys(name for node in later for name in node.input) if name in made]
    first, needed_first = _needed(graph.node, [value.name for value in passed])
    conditions = helper.make_model(
        helper.make_graph(
            first,
            "conditions",
            [value for value in graph.input if value.name in needed_first],
            passed,
            [tensor for tensor in graph.initializer if tensor.name in needed_first],
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    inputs = [value for value in graph.input if value.name in needed]
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.input[:], graph.initializer[:]
    graph.node.extend(later)
    graph.input.extend([*inputs, *passed])
    graph.initializer.extend(initializers)
    return conditions


def _constant_over_steps(model: "ModelProto") -> set[str]:
    """Return the names of what is computed from inputs, and from none that changes."""
    sources = {value.name: frozenset((value.name,)) for value in model.graph.input}
    for node in model.graph.node:
        found = frozenset[str]().union(*(sources.get(name, frozenset()) for name in node.input))
        sources |= dict.fromkeys(node.output, found)
    inputs = {value.name for value in model.graph.input}
    return {name for name, found in sources.items() if found and not found & CHANGING} - inputs


def _needed(nodes: Sequence["NodeProto"], names: Iterable[str]) -> tuple[list["NodeProto"], set[str]]:
    """Return the nodes, in their order, that these names need, and the names of all that they take."""
    needed, kept = set(names), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1], needed

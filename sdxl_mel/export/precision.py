"""Which weights stay float16 where the others are int8: those whose rounding changes predictions most for their bytes.

Rounding to int8 moves a weight by up to half of its channel's scale, with a variance of scale**2 / 12. That counts as
much as the squares of the derivatives of all outputs, whose sum is the expected square of one derivative: that of the
outputs' sum under random signs (Hutchinson, 1990).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdxl_mel.arrays import Float
from sdxl_mel.export.graphs import Part
from sdxl_mel.export.manifest import Drawn
from sdxl_mel.export.runner import Arrays, Exported
from sdxl_mel.export.weights import int8_axes, quantised
from sdxl_mel.record import sha256_bytes
from sdxl_mel.seeding import torch_generator

if TYPE_CHECKING:
    from onnx import ModelProto

HALF_SHARE = 1 / 5
"""Of the numbers of a UNet that int8 is for, at most so many stay float16."""
PROMPT = "mel spectrogram, flute and guitar, fast, lively"
PROBES = 5
"""So many steps of a drawing are looked at; each costs about three predictions."""


class Step(NamedTuple):
    """What a UNet is given in a step of a drawing, and how much of its picture's variance is noise."""

    inputs: Arrays
    noise: float


def worth_halves(part: Part, model: "ModelProto", exact: Exported, drawing: Drawn) -> set[str]:
    """Return the weights of a UNet's graph that are to stay float16, as far as `HALF_SHARE` goes.

    Judged by the steps in which `exact`, the same UNet with exact weights, makes a drawing.
    """
    axes = int8_axes(model, part.kept)
    weights = _weights(model, axes)
    steps = _spread(unet_steps(exact, PROMPT, drawing), PROBES)
    errors = rounding_errors(part, weights, axes, steps, drawing.guidance)
    sizes = {name: values.size for name, values in weights.items()}
    return most_worth(errors, sizes, int(HALF_SHARE * sum(sizes.values())))


def most_worth(errors: Mapping[str, float], sizes: Mapping[str, int], room: int) -> set[str]:
    """Return those with the largest errors for their sizes, as far as there is room for them."""
    chosen = set()
    for name in sorted(errors, key=lambda name: errors[name] / sizes[name], reverse=True):
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    return chosen


def unet_steps(exported: Exported, text: str, drawing: Drawn) -> list[Step]:
    """Return the steps of drawing a text."""
    clean, steps = exported.description.scheduler.alphas_cumprod, []

    def unet(inputs: Arrays) -> list[NDArray[np.float32]]:
        noise = 1.0 - clean[round(float(inputs["timestep"][0]))]
        steps.append(Step({name: each.copy() for name, each in inputs.items()}, noise))
        return exported.models.unet(inputs)

    replace(exported, models=replace(exported.models, unet=unet)).latents(text, 0, drawing)
    return steps


def rounding_errors(
    part: Part, weights: Mapping[str, Float], axes: Mapping[str, int], steps: Sequence[Step], guidance: float
) -> dict[str, float]:
    """Return the squared error that int8 is expected to make in the guided predictions of steps, for each weight.

    A prediction moves a picture as far as that is noise, and so does its error. A weight that the exporter has changed,
    so that the part has none like it, is not among them.
    """
    layers = dict(_layers(part.module, weights))
    parameters = [parameter for parameter, _ in layers.values()]
    variances = {name: _variance(weights[name], axes[name]) for name in layers}
    errors = dict.fromkeys(layers, 0.0)
    for number, (inputs, noise) in enumerate(steps):
        generator = torch_generator(0, "export", "signs", number)
        derivatives = _derivatives(part, parameters, inputs, guidance, generator)
        for (name, (_, turned)), derivative in zip(layers.items(), derivatives):
            found = derivative.T if turned else derivative
            errors[name] += noise * float((found.square() * variances[name]).sum())
    return errors


def _derivatives(
    part: Part, parameters: Sequence[nn.Parameter], inputs: Arrays, guidance: float, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Return the derivatives of the guided prediction's sum under random signs."""
    asked = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        noise = part.module(*(torch.from_numpy(inputs[name]) for name in part.inputs))
        guided = noise[:1] + guidance * (noise[1:] - noise[:1]) if len(noise) > 1 else noise
        signs = 2.0 * torch.randint(0, 2, guided.shape, generator=generator) - 1.0
        return torch.autograd.grad((guided * signs).sum(), parameters)
    finally:
        for parameter, before in zip(parameters, asked):
            parameter.requires_grad_(before)


def _layers(module: nn.Module, weights: Mapping[str, Float]) -> Iterator[tuple[str, tuple[nn.Parameter, bool]]]:
    """Yield the weights of a graph with the parameter that each is, and whether the exporter has turned it.

    The exporter renames what it turns, so that they are found by their numbers.
    """
    found: dict[str, tuple[nn.Parameter, bool]] = {}
    for parameter in module.parameters():
        found[_fingerprint(parameter.detach().numpy())] = parameter, False
        if parameter.ndim == 2:
            found.setdefault(_fingerprint(parameter.detach().numpy().T), (parameter, True))
    for name, values in weights.items():
        if (layer := found.get(_fingerprint(values))) is not None:
            yield name, layer


def _fingerprint(values: Float) -> str:
    return f"{values.shape} {sha256_bytes(np.ascontiguousarray(values).tobytes())}"


def _variance(values: Float, axis: int) -> Tensor:
    _, scales = quantised(values, axis)
    shape = [-1 if each == axis else 1 for each in range(values.ndim)]
    return torch.from_numpy(scales).square().reshape(shape) / 12


def _weights(model: "ModelProto", names: Mapping[str, int]) -> dict[str, Float]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in names}


def _spread(steps: Sequence[Step], count: int) -> list[Step]:
    """Return at most so many of the steps, evenly from the first to the last."""
    places = np.unique(np.linspace(0, len(steps) - 1, count).round().astype(int))
    return [steps[place] for place in places]

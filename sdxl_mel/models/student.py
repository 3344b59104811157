"""A smaller UNet of the same family, with the layers, heads and channels of a larger one that matter most.

Depth goes by what layers change, width by what is read of channels; both are measured while the larger one runs. Down
blocks keep their first layers, up blocks their first and their last one, whose skip connection is of another width.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sdxl_mel.errors import InputError
from sdxl_mel.models.pruning import (
    RESIDUAL,
    Kept,
    Leaves,
    Space,
    Wires,
    influences,
    load_pruned,
    measured,
    most_influential,
    wired,
)
from sdxl_mel.seeding import torch_seeded

BLOCKS = ".transformer_blocks"
PLACE = re.compile(
    r"(?P<side>down_blocks|up_blocks|mid_block)(\.(?P<block>\d+))?"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<leaf>.+)"
)
SAMPLER: Leaves = ((r"conv", "level", "level"),)
TRANSFORMER: Leaves = (
    (r"norm", "level", ""),
    (r"proj_in", "stream", "level"),
    (r"proj_out", "level", "stream"),
    (r".*\.norm\d", "stream", ""),
    (r".*\.attn2\.to_[kv]", "heads", ""),
    (r".*\.to_[qkv]", "heads", "stream"),
    (r".*\.to_out\.0", "stream", "heads"),
    (r".*\.ff\.net\.0\.proj", "both halves", "stream"),
    (r".*\.ff\.net\.2", "stream", "hidden"),
)
LEAVES: Mapping[str, Leaves] = {
    "resnets": RESIDUAL,
    "attentions": TRANSFORMER,
    "downsamplers": SAMPLER,
    "upsamplers": SAMPLER,
}
ENDS: Leaves = (
    (r"conv_in|conv_norm_out", "level", ""),
    (r"conv_out", "", "level"),
    (r"time_embedding\.linear_1", "", "frequencies"),
    (r".*", "", ""),
)


@dataclass(frozen=True)
class StudentShape:
    """Widths and transformer layers of each level from the picture inwards, layers per block; None = the teacher's.

    Without `middle` the block between the way in and the way out is left out.
    """

    block_out_channels: tuple[int, ...] | None = None
    layers_per_block: int | None = None
    transformer_layers_per_block: tuple[int, ...] | None = None
    middle: bool = True


@dataclass(frozen=True)
class Feature:
    """A pair of modules whose outputs should agree; `channels` are those of the teacher's that the student has."""

    student: str
    teacher: str
    channels: Tensor


@dataclass(frozen=True)
class Student:
    """A smaller UNet and the self-attentions in which it can be compared with its teacher."""

    unet: Any
    features: tuple[Feature, ...]


def student_config(teacher: Mapping[str, Any], shape: StudentShape) -> dict[str, Any]:
    """Return the config of a UNet of a shape. Raises InputError for one that no UNet of the teacher's family has."""
    config = {name: value for name, value in teacher.items() if not name.startswith("_")}
    own = _levels(teacher)
    widths = shape.block_out_channels or own.widths
    depths = shape.transformer_layers_per_block or own.depths
    layers = shape.layers_per_block or own.layers
    for name, found in (("block_out_channels", widths), ("transformer_layers_per_block", depths)):
        if len(found) != len(own.widths):
            raise InputError(f"student.{name}: found {len(found)} levels; the teacher has {len(own.widths)}")
    problems = [*_problems(own, widths, depths, layers, teacher["norm_num_groups"])]
    if problems:
        raise InputError(f"student: {problems[0]}; the teacher has {own.widths}, {own.depths} and {own.layers} layers")
    heads = tuple(head * width // whole for head, width, whole in zip(own.heads, widths, own.widths))
    return config | {
        "block_out_channels": widths,
        "attention_head_dim": tuple(max(1, head) for head in heads),
        "layers_per_block": layers,
        "transformer_layers_per_block": depths,
        "time_embedding_dim": teacher.get("time_embedding_dim") or 4 * own.widths[0],
        "mid_block_type": teacher["mid_block_type"] if shape.middle else None,
    }


def student_of(teacher: Any, shape: StudentShape, run: Callable[[], object]) -> Student:
    """Return a UNet of a shape with the weights of the teacher that matter most while `run` uses it."""
    unet = UNet2DConditionModel.from_config(student_config(teacher.config, shape))
    blocks = {path: each for path, each in teacher.named_modules() if path.rpartition(".")[0].endswith(BLOCKS)}
    with torch.no_grad(), influences(blocks) as influence:
        run()
    sources = sources_of(unet, teacher.config, influence)
    wires = student_wires(unet, teacher.config, sources)
    spaces = measured(teacher, run, wires, _spaces(wires, unet.config, teacher.config))
    load_pruned(unet, teacher, wires, spaces)
    return Student(unet.requires_grad_(True), features_of(unet, wires, spaces))


def new_student(teacher: Any, shape: StudentShape, seed: int) -> Any:
    """Return a UNet of a shape with random weights, to compare with."""
    with torch_seeded(seed, "random student"):
        return UNet2DConditionModel.from_config(student_config(teacher.config, shape))


def features_of(unet: nn.Module, wires: Mapping[str, Wires], spaces: Mapping[str, Kept]) -> tuple[Feature, ...]:
    """Return every self-attention of the student with that of the teacher that it was made of (KOALA, 2312.04005)."""
    found = []
    for path, _ in unet.named_modules():
        if path.endswith(".attn1"):
            last = wires[f"{path}.to_out.0"]
            found.append(Feature(path, last.source.removesuffix(".to_out.0"), spaces[last.writes[0]].channels))
    return tuple(found)


def sources_of(unet: Any, teacher: Mapping[str, Any], influence: Mapping[str, float]) -> dict[str, str]:
    """Return the module of the teacher for each layer of the student: residual layers, attentions, transformers."""
    own, whole = unet.config, _levels(teacher)
    down = range(own.layers_per_block)
    up = [*range(own.layers_per_block), whole.layers]
    sources: dict[str, str] = {}
    for path, module in unet.named_modules():
        match path.split("."):
            case [("down_blocks" | "up_blocks") as side, level, ("resnets" | "attentions") as kind, layer]:
                kept = down if side == "down_blocks" else up
                sources[path] = f"{side}.{level}.{kind}.{kept[int(layer)]}"
            case ["mid_block", "attentions", "0"]:
                sources[path] = path
        if path in sources and hasattr(module, "transformer_blocks"):
            names = [name for name in influence if name.startswith(f"{sources[path]}.transformer_blocks.")]
            best = most_influential(names, influence, len(module.transformer_blocks))
            sources |= {f"{path}.transformer_blocks.{index}": name for index, name in enumerate(best)}
    return sources


def student_wires(unet: Any, teacher: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Wires]:
    """Return what every module of the student takes from the teacher, and in which spaces."""
    levels = _level_spaces(unet.config.block_out_channels, _levels(teacher).widths)
    last = unet.config.layers_per_block
    wires = {}
    for path, module in unet.named_modules():
        if [*module.parameters(recurse=False)]:
            layer = max((name for name in sources if path.startswith(f"{name}.")), key=len, default="")
            source = sources[layer] + path.removeprefix(layer) if layer else path
            wires[path] = _wires(path, source, levels, last)
    return wires


@dataclass(frozen=True)
class _Levels:
    """The numbers of a UNet's levels, from the picture inwards, and its layers per block."""

    widths: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    attends: tuple[bool, ...]
    layers: int


def _levels(config: Mapping[str, Any]) -> _Levels:
    widths = tuple(config["block_out_channels"])

    def each(value: Any) -> tuple[int, ...]:
        return (value,) * len(widths) if isinstance(value, int) else tuple(value)

    attends = tuple("CrossAttn" in kind for kind in config["down_block_types"])
    if config.get("mid_block_type"):
        attends = (*attends[:-1], True)
    return _Levels(
        widths,
        each(config["attention_head_dim"]),
        each(config["transformer_layers_per_block"]),
        attends,
        config["layers_per_block"],
    )


def _problems(own: _Levels, widths: Sequence[int], depths: Sequence[int], layers: int, groups: int) -> Iterator[str]:
    """Yield what is impossible about a shape."""
    if not 1 <= layers <= own.layers:
        yield f"layers_per_block {layers} is not 1 to {own.layers}"
    for level, (width, whole, depth, most) in enumerate(zip(widths, own.widths, depths, own.depths)):
        if not 0 < width <= whole or width % groups:
            yield f"width {width} of level {level} is no multiple of {groups} up to {whole}"
        elif own.attends[level] and own.heads[level] * width % whole:
            yield f"width {width} of level {level} is no whole number of heads of {whole // own.heads[level]}"
        if not 1 <= depth <= most:
            yield f"{depth} transformer layers of level {level} are not 1 to {most}"
        if level and (widths[level - 1] == width) > (own.widths[level - 1] == whole):
            yield f"level {level} is as wide as the one before it, which is so in the student alone"


def _level_spaces(widths: Sequence[int], whole: Sequence[int]) -> list[str]:
    """Return the space of each level's stream; levels between which no shortcut lies in either model share one."""
    names = ["level 0"]
    for level in range(1, len(widths)):
        joined = widths[level] == widths[level - 1] and whole[level] == whole[level - 1]
        names.append(names[-1] if joined else f"level {level}")
    return names


def _wires(path: str, source: str, levels: Sequence[str], last: int) -> Wires:
    """Return the wires of a module of the student.

    `levels` are the spaces of the levels' streams, from the picture inwards, `last` is the last layer of an up block.
    """
    place = PLACE.fullmatch(path)
    if place is None:
        ends = {"level": (levels[0],), "frequencies": ("frequencies",)}
        return wired(source, path, ENDS, ends)
    deepest, side, layer = len(levels) - 1, place["side"], place["layer"]
    level = deepest if side == "mid_block" else int(place["block"])
    level = deepest - level if side == "up_blocks" else level
    own, before = levels[level], levels[max(level - 1, 0)]
    first = layer == "0"
    into: tuple[str, ...] = (before if side == "down_blocks" and first else own,)
    if side == "up_blocks":
        hidden = levels[min(level + 1, deepest)] if first else own
        into = (hidden, before if int(layer) == last else own)
    module = path.removesuffix(f".{place['leaf']}")
    inner = path.rpartition(".")[0]
    spaces = {
        "level": (own,),
        "out": (own,),
        "into": into,
        "inner": (inner,),
        "stream": (f"{module} stream",),
        "heads": (f"{inner.removesuffix('.to_out')} heads",),
        "hidden": (f"{module} {place['leaf'].split('.')[1]} hidden",) if ".ff." in path else (),
        "both halves": (f"{module} {place['leaf'].split('.')[1]} hidden",) * 2 if ".ff." in path else (),
    }
    return wired(source, place["leaf"], LEAVES[place["kind"]], spaces)


def _spaces(wires: Mapping[str, Wires], own: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, Space]:
    """Return every space that the wires name, with its sizes in both models."""
    widths, whole = tuple(own["block_out_channels"]), _levels(teacher)
    spaces = {}
    for name in dict.fromkeys(name for each in wires.values() for name in (*each.writes, *each.reads)):
        if name == "frequencies":
            spaces[name] = Space(whole.widths[0], widths[0], stated=nearest_frequencies(whole.widths[0], widths[0]))
            continue
        level = _level_of(name, len(widths))
        size, kept = whole.widths[level], widths[level]
        if name.endswith(" heads"):
            spaces[name] = Space(size, kept, unit=size // whole.heads[level])
        elif name.endswith(" hidden"):
            spaces[name] = Space(4 * size, 4 * kept)
        else:
            spaces[name] = Space(size, kept)
    return spaces


def _level_of(name: str, levels: int) -> int:
    match name.split(" ", maxsplit=1)[0].split("."):
        case ["level"]:
            return int(name.split(" ")[1])
        case ["down_blocks", block, *_]:
            return int(block)
        case ["up_blocks", block, *_]:
            return levels - 1 - int(block)
    return levels - 1


def nearest_frequencies(size: int, kept: int) -> list[int]:
    """Return the channels of a time embedding of `size`, half cosines and half sines, nearest to those of `kept`.

    Frequency i of n is 10000^(-i/n) in every size.
    """
    half, own = size // 2, kept // 2
    nearest = [round(index * half / own) for index in range(own)]
    return [*nearest, *(half + index for index in nearest)]

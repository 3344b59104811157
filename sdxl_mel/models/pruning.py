"""Smaller models from the weights of larger ones: which layers and channels matter, as measured, and what stays.

Channels live in spaces: everything that writes to or reads from a space keeps the same channels of it. What a model's
modules read and write is said by its own module (`small_decoder`, `student`); here is what they have in common.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LINEAR = (nn.Linear, nn.Conv2d)


class Wires(NamedTuple):
    """Whose weights a module of the smaller model takes, and the spaces of its outputs and inputs, side by side.

    No space means that all channels stay.
    """

    source: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


Leaves = Sequence[tuple[str, str, str]]
"""Patterns of modules in a block, and what those write and read, as a block calls its spaces; nothing = all stay."""
RESIDUAL: Leaves = (
    (r"norm1", "into", ""),
    (r"conv1", "inner", "into"),
    (r"time_emb_proj|norm2", "inner", ""),
    (r"conv2", "out", "inner"),
    (r"conv_shortcut", "out", "into"),
)
"""diffusers' ResnetBlock2D."""


def wired(source: str, leaf: str, leaves: Leaves, spaces: Mapping[str, tuple[str, ...]]) -> Wires:
    """Return the wires of a module of a block, by the first pattern that fits."""
    writes, reads = next(each[1:] for each in leaves if re.fullmatch(each[0], leaf))
    return Wires(source, spaces.get(writes, ()), spaces.get(reads, ()))


@dataclass(frozen=True)
class Space:
    """`size` channels, of which `kept` stay, whole units of `unit` channels (the channels of an attention head).

    `stated` says which ones, where that is not a matter of measuring.
    """

    size: int
    kept: int
    unit: int = 1
    stated: Sequence[int] | None = None


class Kept(NamedTuple):
    """The channels of a space that stay, in order, of `size`."""

    size: int
    channels: Tensor


def keep(space: Space, importance: Tensor) -> Kept:
    """Return which channels stay: the most important of every run of neighbours.

    Runs are as short as the sizes allow, so that the groups of a GroupNorm keep their share of channels.
    """
    if space.stated is not None:
        return Kept(space.size, torch.tensor(space.stated))
    units, kept = space.size // space.unit, space.kept // space.unit
    runs = math.gcd(units, kept)
    scores = importance.view(units, space.unit).sum(dim=1).view(runs, units // runs)
    best = scores.topk(kept // runs, dim=1).indices.sort(dim=1).values
    first = (best + torch.arange(runs)[:, None] * (units // runs)).flatten()
    return Kept(space.size, (first[:, None] * space.unit + torch.arange(space.unit)).flatten())


@torch.no_grad()
def measured(
    teacher: nn.Module, run: Callable[[], object], wires: Mapping[str, Wires], spaces: Mapping[str, Space]
) -> dict[str, Kept]:
    """Return the channels of every space that stay: those that matter most to what reads them while `run` uses them.

    The mean square of a channel times the squared weights that read it, as in Wanda (arXiv 2306.11695, equation 1),
    here summed over all readers instead of compared within one.
    """
    importance = {name: torch.zeros(space.size, dtype=torch.float64) for name, space in spaces.items()}
    readers = {each.source: each.reads for each in wires.values() if each.reads}
    squares: dict[str, list[Tensor]] = {source: [] for source in readers}

    def note(source: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels = inputs[0].movedim(1 if isinstance(module, nn.Conv2d) else -1, 0)
            squares[source].append(channels.flatten(1).float().square().mean(dim=1).double().cpu())

        return hook

    modules = {source: module for source in readers if isinstance(module := _module(teacher, source), LINEAR)}
    handles = [module.register_forward_pre_hook(note(source)) for source, module in modules.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for source, module in modules.items():
        if not squares[source]:
            continue
        weight = module.weight.detach().double().cpu().transpose(0, 1).flatten(1).square().sum(dim=1)
        scores = torch.stack(squares[source]).mean(dim=0) * weight
        sizes = [spaces[name].size for name in readers[source]]
        for name, part in zip(readers[source], scores.split(sizes)):
            importance[name] += part
    return {name: keep(space, importance[name]) for name, space in spaces.items()}


@torch.no_grad()
def load_pruned(
    student: nn.Module, teacher: nn.Module, wires: Mapping[str, Wires], spaces: Mapping[str, Kept]
) -> nn.Module:
    """Give a smaller model the weights of a larger one on the channels that stay, and return it.

    A shortcut that the larger model does without, as its width does not change there, passes on what stays.
    """
    for path, module in student.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        source, writes, reads = wires[path]
        there = _module(teacher, source)
        if there is None:
            own.pop("bias").zero_()
            (one,), (other,) = writes, reads
            same = spaces[one].channels[:, None] == spaces[other].channels[None]
            own["weight"].copy_(same.view(own["weight"].shape))
            continue
        outputs, inputs = _joined(writes, spaces), _joined(reads, spaces)
        for name, parameter in own.items():
            weight = getattr(there, name).detach()
            weight = weight if outputs is None else weight[outputs.to(weight.device)]
            weight = weight if inputs is None or weight.ndim < 2 else weight[:, inputs.to(weight.device)]
            parameter.copy_(weight)
    return student


@contextmanager
def influences(blocks: Mapping[str, nn.Module]) -> Iterator[dict[str, float]]:
    """Yield what becomes, by the end of the block, how much each layer changes what it is given.

    1 - the mean cosine of a token before and after it (ShortGPT's block influence, arXiv 2403.03853, equation 1).
    """
    found: dict[str, list[float]] = {name: [] for name in blocks}
    result: dict[str, float] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
            before = inputs[0] if inputs else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = nn.functional.cosine_similarity(before.detach().float(), after.detach().float(), dim=-1)
            found[name].append(1.0 - float(cosine.mean()))

        return hook

    handles = [block.register_forward_hook(note(name), with_kwargs=True) for name, block in blocks.items()]
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()
        result.update({name: sum(values) / len(values) for name, values in found.items() if values})


def most_influential(names: Sequence[str], influence: Mapping[str, float], count: int) -> list[str]:
    """Return the `count` layers that change most, in their own order; of equals the earlier ones."""
    best = sorted(range(len(names)), key=lambda index: (-influence[names[index]], index))[:count]
    return [names[index] for index in sorted(best)]


def _module(model: nn.Module, path: str) -> Any:
    """Return the module at a path, None without one."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _joined(names: Sequence[str], spaces: Mapping[str, Kept]) -> Tensor | None:
    """Return the channels that stay of spaces side by side, None for all."""
    if not names:
        return None
    starts = accumulate((spaces[name].size for name in names), initial=0)
    return torch.cat([spaces[name].channels + start for name, start in zip(names, starts)])

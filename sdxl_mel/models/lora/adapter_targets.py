"""Which layers of a model get an adapter: presets by place in the model, never by class name of its blocks."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from sdxl_mel.errors import InputError

PRESETS = ("all-linear", "attention", "all-linear+conv", "attention+conv")

_ATTENTION = re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")


def select_targets(model: nn.Module, part: str, targets: Sequence[str]) -> list[str]:
    """Return the module paths that `targets` name: presets, or patterns such as `mid_block.*` over the paths.

    all-linear: every Linear of the UNet's transformers (722 in SDXL), or of a text encoder's layers (72 and 192).
    attention: the projections of their attentions only (560). +conv adds the UNet's convolutions and the Linear layers
    outside its transformers. Raises InputError for a target that matches nothing, or only what cannot be adapted.
    """
    layers = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    chosen: dict[str, None] = {}
    for target in targets:
        found = [path for path in layers if _matches(path, layers[path], part, target)]
        if not found:
            raise InputError(
                f"target {target!r} matches no Linear or Conv2d of the {part}; presets: {', '.join(PRESETS)}; "
                "or a pattern over paths, e.g. 'up_blocks.*.attn2.*'"
            )
        chosen.update(dict.fromkeys(found))
    return [path for path in layers if path in chosen]


def rank_of(path: str, rank: int, rank_patterns: Mapping[str, int]) -> int:
    """Return the rank of a module: that of the last pattern it matches, else `rank`."""
    return next((rank_patterns[key] for key in reversed(list(rank_patterns)) if fnmatchcase(path, key)), rank)


def canonical_path(part: str, path: str) -> str:
    """Return the path as LoRA files spell it: transformers 5.6 dropped `text_model.` from one encoder of two."""
    return path if part == "unet" or path.startswith(("text_model.", "text_projection")) else f"text_model.{path}"


def module_paths(model: nn.Module, part: str) -> dict[str, str]:
    """Return {canonical path: path in this model} of every module."""
    return {canonical_path(part, path): path for path, _ in model.named_modules() if path}


def _matches(path: str, module: nn.Module, part: str, target: str) -> bool:
    if target not in PRESETS:
        return fnmatchcase(path, target) or fnmatchcase(canonical_path(part, path), target)
    if part != "unet":
        inside = ".layers." in path
        return inside and (target.startswith("all") or bool(_TEXT_ATTENTION.search(path)))
    if ".attentions." not in path:
        return target.endswith("+conv")
    linear = isinstance(module, nn.Linear)
    return linear and (target.startswith("all") or bool(_ATTENTION.search(path)))


def groups_by_rank(
    paths: Sequence[str], rank: int, rank_patterns: Mapping[str, int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield (rank, paths) for every rank that occurs. Raises InputError for a pattern that matches nothing."""
    for pattern in rank_patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise InputError(f"rank pattern {pattern!r} matches none of the {len(paths)} chosen layers")
    ranks = {path: rank_of(path, rank, rank_patterns) for path in paths}
    for each in sorted(set(ranks.values())):
        yield each, [path for path in paths if ranks[path] == each]

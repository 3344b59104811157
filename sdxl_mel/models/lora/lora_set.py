"""Several LoRA files with their strengths, as people state them, and what they say together."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.lora.file import Alpha, Lora, read_lora
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.sound.melspec import require_equal


class ScaledLora(NamedTuple):
    """A LoRA, the file it came from, and its strength."""

    path: Path
    lora: Lora
    scale: float


def read_loras(files: Sequence[str], scales: Sequence[float] = (), alpha: Alpha | None = None) -> list[ScaledLora]:
    """Read LoRAs with strengths from FILE:0.8 or from `scales`; see `paired_scales`."""
    return [ScaledLora(path, read_lora(path, alpha), scale) for path, scale in paired_scales(files, scales)]


def paired_scales(files: Sequence[str], scales: Sequence[float] = ()) -> list[tuple[Path, float]]:
    """Return each file and its strength: FILE:0.8, or one of `scales` for each file in the same order, or 1.

    Raises InputError when the counts differ, both ways are used, or a strength is not finite.
    """
    split = [_split(text) for text in files]
    if scales and any(scale is not None for _, scale in split):
        raise InputError("scales are given both as FILE:SCALE and as --scale; use one of the two")
    if scales and len(scales) != len(split):
        raise InputError(
            f"{len(scales)} --scale for {len(split)} --lora; give one for each in the same order, or none for 1"
        )
    chosen = list(scales) or [1.0 if scale is None else scale for _, scale in split]
    for (path, _), scale in zip(split, chosen):
        if not isfinite(scale):
            raise InputError(f"{path}: a scale of {scale} is no strength; give a number such as 0.8")
    return [(path, scale) for (path, _), scale in zip(split, chosen)]


def _split(text: str) -> tuple[Path, float | None]:
    name, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    try:
        return Path(name), float(number)
    except ValueError:
        return Path(text), None


def joint_header(loras: Sequence[ScaledLora]) -> LoraHeader:
    """Return the header of all LoRAs together: that of the first which knows its spec.

    Raises MismatchError when two of them differ in spec or clip skip. Anchors may differ; the first one counts.
    """
    ours = [(str(path), lora.header) for path, lora, _ in loras if lora.header.spec is not None]
    if not ours:
        return LoraHeader()
    first_name, first = ours[0]
    for name, header in ours[1:]:
        assert header.spec is not None and first.spec is not None
        require_equal(first.spec, header.spec, first_name, name)
        if header.clip_skip != first.clip_skip:
            raise MismatchError(
                f"{first_name} was trained with clip skip {first.clip_skip}, {name} with {header.clip_skip}; "
                "they cannot share a text encoder"
            )
    return replace(first, training={}, record=None)

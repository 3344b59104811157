"""Durations as settings have them, `25%` of a tile, `192` frames, `1.5s`; and points in time, `1:30`, `90`."""

import re
from typing import TYPE_CHECKING

from sdxl_mel.errors import InputError

if TYPE_CHECKING:
    from sdxl_mel.sound.melspec import MelSpec


def frames_of(text: str, spec: "MelSpec", what: str) -> int:
    """Return a duration in frames: a percentage of the tile width, a number of frames, or seconds with `s`.

    Raises InputError that names `what` for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|s|)\s*", text)
    if match is None or (not match[2] and "." in match[1]):
        raise InputError(f"{what}: found {text!r}; give a percentage (25%), frames (192) or seconds (1.5s)")
    number = float(match[1])
    match match[2]:
        case "%":
            return round(spec.width * number / 100)
        case "s":
            return round(number * spec.sample_rate / spec.hop_length)
        case _:
            return int(number)


def seconds_of(text: str, what: str) -> float:
    """Return a point in time, `90`, `90.5`, `1:30` or `1:02:30`, in seconds. Raises InputError that names `what`."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text.strip()):
        raise InputError(f"{what}: found {text!r}; give seconds (90) or minutes and seconds (1:30)")
    total = 0.0
    for part in text.strip().split(":"):
        total = total * 60 + float(part)
    return total

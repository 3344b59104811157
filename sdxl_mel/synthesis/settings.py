"""What can be asked of the synthesis engine, as small values; settings and help read them without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdxl_mel.diffusion.samplers import Merge

Mode = Literal["joint", "extend", "independent"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
SoundFormat = Literal["wav", "flac", "ogg", "none"]
Method = Literal["best", "fast"]
"""How a sound is made from its picture."""


@dataclass(frozen=True)
class Length:
    """How long a result is, None = one tile, and how the views of a long piece lie."""

    seconds: float | None = None
    loop: bool = False
    mode: Mode = "joint"
    overlap: str | None = None
    merge: Merge = "swap"


@dataclass(frozen=True)
class InitFile:
    """A sound or a picture to start from: where its tile starts in seconds, how far to go from it, the gap to fill."""

    path: Path
    start: float = 0.0
    strength: float = 0.6
    inpaint: str | None = None


@dataclass(frozen=True)
class Output:
    """The folder of results, what is written there beside the pictures, and whether other results may be replaced."""

    path: Path
    sound: SoundFormat = "wav"
    method: Method = "best"
    plot: bool = False
    overwrite: bool = False

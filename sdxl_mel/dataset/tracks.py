"""What a source yields: tracks with their captions, and a word for everything that could not be one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from sdxl_mel.config import Skipped
from sdxl_mel.corpus.tracks import TrackPlan


@dataclass(frozen=True)
class ArrowRow:
    """Audio inside a saved `datasets` folder: row `index` of `split`, column `column`."""

    folder: Path
    split: str
    index: int
    column: str


AudioPlace: TypeAlias = Path | ArrowRow | TrackPlan
"""Where the audio of a track is: a file, a row of a table, or a plan by which it is rendered."""


@dataclass(frozen=True)
class SourceTrack:
    """One track as its source describes it; `split` and `group` only where the source decides them.

    `names` are artist names that captions must not mention, `instruments` are those the source states.
    """

    identifier: str
    audio: AudioPlace
    captions: tuple[str, ...]
    tags: tuple[str, ...] = ()
    artist: str = ""
    names: tuple[str, ...] = ()
    licence: str = ""
    split: str = ""
    group: str = ""
    instruments: tuple[str, ...] = ()


@dataclass
class SourceList:
    """All tracks of a source in its own order, what was skipped and why, and warnings for the reader."""

    tracks: list[SourceTrack]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "regularization": "regularization",
    "regularisation": "regularization",
}
"""What sources call a split, and what we call it."""

"""What a source yields: tracks with their captions, and a word for everything that could not be one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sdxl_mel.config import Skipped
from sdxl_mel.corpus.tracks import TrackPlan
from sdxl_mel.errors import printable


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

    `names` are artist names that captions must not mention, `instruments` are those the source states. `split` is the
    source's own word until `dataset.sources` has made it one of ours.
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


def described(identifier: str, audio: AudioPlace, texts: Mapping[str, tuple[str, ...]]) -> SourceTrack:
    """Return a track from what its source says of it: texts by role, such as `caption` and `artist`."""
    first = {role: "".join(values[:1]).strip() for role, values in texts.items()}
    artist = first.get("artist", "")
    instruments = (part.strip() for text in texts.get("instruments", ()) for part in re.split(r"[,;+]", text))
    return SourceTrack(
        identifier=identifier,
        audio=audio,
        captions=texts.get("caption", ()),
        tags=tuple(filter(None, texts.get("tags", ()))),
        artist=artist,
        names=() if artist.isdigit() or not artist else (artist,),
        licence=first.get("licence", ""),
        split=first.get("split", ""),
        instruments=tuple(filter(None, instruments)),
    )


@dataclass
class SourceList:
    """All tracks of a source in its own order, what was skipped and why, and warnings for the reader."""

    tracks: list[SourceTrack] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _index: dict[str, int] = field(default_factory=dict, repr=False)

    def add(self, track: SourceTrack, where: str) -> None:
        """Add a track; one with the id and the audio of another adds its captions, with other audio it is skipped."""
        number = self._index.setdefault(track.identifier, len(self.tracks))
        if number == len(self.tracks):
            self.tracks.append(track)
            return
        known = self.tracks[number]
        if known.audio == track.audio:
            self.tracks[number] = replace(known, captions=known.captions + track.captions)
        else:
            why = f"duplicate id {track.identifier!r}: it is {_name(known)} already, here it is {_name(track)}"
            self.skipped.append(Skipped(what=where, why=why))


def _name(track: SourceTrack) -> str:
    return track.audio.name if isinstance(track.audio, Path) else track.identifier


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


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more

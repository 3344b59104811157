"""What the dataset engine is told, as values; a help text reads them without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from sdxl_mel.config import Settings, StageReport
from sdxl_mel.options import DEFAULT_ANCHOR

SourceKind = Literal["auto", "folder", "table", "song-describer", "musiccaps", "audiofolder", "datasets", "demo"]
Vocals = Literal["regularization", "drop", "keep"]
DemoGroup = Literal["base", "left-out"]
SHARD_BYTES = 1 << 24


@dataclass(frozen=True)
class FileSource:
    """Music and captions in files: a folder or a table.

    `audio_dir` is where the audio of a table lies, `tags` an MTG-Jamendo tsv, `columns` the names of a table's columns
    by their role; `valid_subset` keeps only the validated captions of Song Describer, `uncaptioned` audio without any.
    """

    place: Path
    kind: SourceKind = "auto"
    audio_dir: Path | None = None
    tags: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    valid_subset: bool = False
    uncaptioned: bool = False


@dataclass(frozen=True)
class DemoSource:
    """A number of tracks of the built-in corpus, of instruments that the mini base has heard or not."""

    tracks: int
    group: DemoGroup
    seed: int


@dataclass(frozen=True)
class Cutting:
    """How clips are cut: one every `stride_seconds` (None: a tile), at most `count` a track, evenly spread.

    `skip_seconds` are left out at both ends of a track; each clip has `offsets` time offsets within one latent.
    """

    stride_seconds: float | None = None
    count: int | None = None
    skip_seconds: float = 1.0
    offsets: int = 1


class RejectSettings(Settings):
    """What a clip may not be."""

    silence_dbfs: float = -60.0
    """level under which a tenth of a second is silent, dBFS after loudness normalisation"""
    silent_share: float = Field(0.2, ge=0, le=1)
    """share of a clip that may be silent"""
    quiet_lufs: float = -45.0
    """lowest loudness of a clip, LUFS"""
    clipped_per_second: float = Field(10.0, ge=0)
    """most clipped peaks a second (3 equal samples in a row at full scale)"""
    duplicate_similarity: float = Field(0.85, gt=0, le=1)
    """similarity to an earlier clip from which a clip is a near-duplicate"""


@dataclass(frozen=True)
class Captioning:
    """What training captions are: `anchor` in front, and what becomes of the captions of vocal tracks.

    With `vocals` "regularization" they are replaced by `class_caption`, with "drop" the track is left out. In front of
    captions for regularization stands `regularization_anchor`.
    """

    anchor: str = DEFAULT_ANCHOR
    vocals: Vocals = "regularization"
    class_caption: str = "song with vocals"
    regularization_anchor: str = ""


@dataclass(frozen=True)
class Splitting:
    """The shares of artists for validation and test, and the instrument pairs held out of training.

    `held_out` are names ("violin+piano") or a number of pairs to draw by the seed ("3").
    """

    validation: float = 0.05
    test: float = 0.1
    held_out: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class CacheSettings:
    """What decides the content of a cache.

    `variants` is how many variants a training caption that is a list of tags has; `splits` are those to encode, none
    for all; a shard has about `shard_bytes` at most.
    """

    dataset: Path
    base: str
    base_config: Path | None = None
    vae: str | None = None
    variants: int = 4
    splits: tuple[str, ...] = ()
    clip_skip: int = 0
    seed: int = 0
    shard_bytes: int = SHARD_BYTES


class CacheContents(StageReport):
    """What a cache holds, and what was encoded now, found or deleted.

    `damaged` shards were made anew, `unused` files belong to no clip any more, `too_long` captions do not fit.
    """

    pictures: int
    texts: int
    encoded_pictures: int = 0
    encoded_texts: int = 0
    damaged: int = 0
    unused: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    too_long: int = 0

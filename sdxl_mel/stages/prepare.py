"""The stage `prepare`: a folder of music and captions, a table, or the demo corpus -> a training set to trust."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.dataset.settings import (
    Captioning,
    Cutting,
    DemoGroup,
    DemoSource,
    FileSource,
    RejectSettings,
    SourceKind,
    Splitting,
    Vocals,
)
from sdxl_mel.options import DEFAULT_ANCHOR, Preset

EXAMPLES = """\
  sdxl-mel prepare my-music/ --out data/mine
  sdxl-mel prepare songs.csv --out data/songs --columns audio=file caption=description --audio-dir clips/
  sdxl-mel prepare song_describer/ --out data/sdd --hold-out-combinations 5
  sdxl-mel prepare --source demo --tracks 120 --preset mini --out data/demo"""

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(StageConfig):
    """Make a training set from a folder of music and captions, a table of captions, or the built-in demo corpus."""

    music: Annotated[Path | None, Show.POSITIONAL, UNRECORDED] = None
    """folder of audio with captions, or table of them (csv, tsv, jsonl)"""
    out: Annotated[Path, UNRECORDED]
    """folder of the dataset; the same command again continues or adds"""
    preset: Preset = "std"
    """format of the pictures"""
    source: SourceKind = "auto"
    """kind of MUSIC; demo renders its own"""
    anchor: str = DEFAULT_ANCHOR
    """words in front of every training caption"""
    vocals: Vocals = "regularization"
    """use of tracks with vocals"""
    listen: bool = False
    """let musicnn listen for voices where captions and tags name none"""
    columns: dict[str, str] = {}
    """a table's columns: audio caption id tags artist licence split ..."""
    audio_dir: Annotated[Path | None, UNRECORDED] = None
    """folder of a table's audio, if not beside it"""
    tags: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """MTG-Jamendo tsv whose tags are joined by track id"""
    stride: float | None = Field(None, gt=0)
    """seconds from one clip to the next; one tile when not set"""
    count: int | None = Field(None, ge=1)
    """most clips a track, evenly spread"""
    offsets: int = Field(1, ge=1, le=8)
    """time offsets, within 8 frames, at which each clip is encoded"""
    validation: Share = 0.05
    """share of artists (or tracks) for validation"""
    test: Share = 0.1
    """share of artists (or tracks) for the test set"""
    hold_out_combinations: tuple[str, ...] = ()
    """instrument pairs kept from training: a number, or violin+piano"""
    base: str | None = None
    """base whose tokenizer counts tokens; estimated when not set"""
    layout: Literal["imagefolder", "kohya"] = "imagefolder"
    """kohya adds kohya/images/N_name/ for other trainers"""
    tracks: int = Field(120, ge=5)
    """tracks of --source demo"""
    seed: int = 0
    """seed of the splits, and of the demo's tracks"""
    jobs: Annotated[int | None, UNRECORDED] = Field(None, ge=1)
    """processes; one a core when not set"""
    demo_group: Annotated[DemoGroup, Show.ADVANCED] = "left-out"
    """instruments of --source demo: those that the mini base has heard, or those it has not"""
    class_caption: Annotated[str, Show.ADVANCED] = "song with vocals"
    """caption of vocal tracks in the regularization split"""
    regularization_anchor: Annotated[str, Show.ADVANCED] = ""
    """words in front of captions for regularization: the anchor, where the base knows it, as mini does"""
    valid_subset: Annotated[bool, Show.ADVANCED] = False
    """use only the captions of Song Describer's validated subset"""
    uncaptioned: Annotated[bool, Show.ADVANCED] = False
    """keep audio without any caption, under the anchor alone"""
    skip_seconds: Annotated[float, Show.ADVANCED, Field(ge=0)] = 1.0
    """seconds left out at the start and at the end of every track"""
    kohya_repeats: Annotated[int, Show.ADVANCED, Field(ge=1)] = 1
    """N of kohya/N_name"""
    overrides: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """edits of single tracks by hand: captions, splits, exclusions; none = overrides.json in OUT, if it is there"""
    reject: RejectSettings = RejectSettings()

    @model_validator(mode="after")
    def _source_given(self) -> Self:
        if self.music is None and self.source != "demo":
            raise ValueError("give a folder of music or a table of captions, or --source demo")
        if self.music is not None and self.source == "demo":
            raise ValueError("--source demo makes its own music; leave MUSIC out")
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        if not self.class_caption.strip():
            raise ValueError("class_caption is empty")
        return self


class Report(StageReport):
    """What was prepared; `counts` has clips, tracks and captions a split, `fates` what became of the captions."""

    out: Path
    counts: dict[str, dict[str, int]] = {}
    rejected: int = 0
    fates: dict[str, int] = {}
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the lines a person wants to see at the end."""
        lines = [
            f"{split:<15}{count['clips']:>7} clips {count['tracks']:>6} tracks {count['captions']:>6} captions"
            for split, count in self.counts.items()
        ]
        captions = ", ".join(f"{count} {fate}" for fate, count in self.fates.items())
        lines.append(f"captions: {captions or 'none'}")
        lines.append(
            f"{self.rejected} rejected by rule, {len(self.skipped)} inputs skipped; see {self.out}/report.html"
        )
        return "\n".join([*lines, *self.notes])


def run(config: Config) -> Report:
    """Prepare a dataset, or continue or update one."""
    prepared = sdxl_mel.prepare(
        _source(config),
        config.out,
        sdxl_mel.named_spec(config.preset),
        captioning=Captioning(config.anchor, config.vocals, config.class_caption, config.regularization_anchor),
        cutting=Cutting(config.stride, config.count, config.skip_seconds, config.offsets),
        reject=config.reject,
        splitting=Splitting(config.validation, config.test, config.hold_out_combinations, config.seed),
        base=config.base,
        listen=config.listen,
        kohya_repeats=config.kohya_repeats if config.layout == "kohya" else None,
        workers=config.jobs or os.cpu_count() or 1,
        overrides=config.overrides,
        settings=config.recorded(),
    )
    dataset = prepared.dataset
    return Report(
        out=config.out,
        counts=dataset.counts,
        rejected=len(dataset.rejected),
        fates=dict(prepared.fates),
        notes=dataset.notes,
        skipped=dataset.skipped,
    )


def _source(config: Config) -> FileSource | DemoSource:
    if config.music is None:
        return DemoSource(config.tracks, config.demo_group, config.seed)
    return FileSource(
        config.music,
        config.source,
        config.audio_dir,
        config.tags,
        config.columns,
        config.valid_subset,
        config.uncaptioned,
    )

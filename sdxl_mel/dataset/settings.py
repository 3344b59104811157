"""The settings of `prepare`, and what it reports."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.dataset.clips import RejectSettings
from sdxl_mel.dataset.sources import Kind
from sdxl_mel.files.dataset import DEFAULT_ANCHOR

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(StageConfig):
    """Make a training set from a folder of music and captions, a table of captions, or the built-in demo corpus."""

    music: Annotated[Path | None, Show.POSITIONAL] = None
    """folder of audio with captions, or table of them (csv, tsv, jsonl)"""
    out: Path
    """the dataset's folder; the same command again continues or adds"""
    preset: str = "std"
    """picture format: std, long, hifi, native, cheap, web, mini"""
    source: Kind = "auto"
    """what MUSIC is; demo renders its own"""
    anchor: str = DEFAULT_ANCHOR
    """the phrase in front of every training caption"""
    vocals: Literal["regularization", "drop", "keep"] = "regularization"
    """what becomes of tracks in which someone sings"""
    listen: bool = False
    """where captions and tags do not speak of voices, let musicnn listen"""
    columns: dict[str, str] = {}
    """a table's names of: audio caption id tags artist licence split ..."""
    audio_dir: Path | None = None
    """where the audio of a table lies, if not beside it"""
    tags: Annotated[Path | None, Show.ADVANCED] = None
    """an MTG-Jamendo tsv whose tags are joined by track id"""
    stride: float | None = Field(None, gt=0)
    """seconds from one clip to the next; one tile when not set"""
    count: int | None = Field(None, ge=1)
    """at most so many clips a track, evenly spread"""
    offsets: int = Field(1, ge=1, le=8)
    """encode each clip at so many time offsets within 8 frames"""
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
    """with --source demo: how many tracks"""
    seed: int = 0
    """the splits, and the demo's tracks"""
    jobs: int | None = Field(None, ge=1)
    """how many processes; all cores when not set"""
    demo_group: Annotated[Literal["base", "left-out"], Show.ADVANCED] = "left-out"
    """with --source demo: instruments that the mini base has heard, or those it has not"""
    class_caption: Annotated[str, Show.ADVANCED] = "song with vocals"
    """the caption of vocal tracks in the regularization split"""
    valid_subset: Annotated[bool, Show.ADVANCED] = False
    """Song Describer: only the captions of its validated subset"""
    uncaptioned: Annotated[bool, Show.ADVANCED] = False
    """keep audio without any caption, under the anchor alone"""
    skip_seconds: Annotated[float, Show.ADVANCED, Field(ge=0)] = 1.0
    """left out at the start and at the end of every track"""
    kohya_repeats: Annotated[int, Show.ADVANCED, Field(ge=1)] = 1
    """the N of kohya/N_name"""
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

"""`sdxl-mel cut`: a long picture to overlapping tiles; `stitch` with the same overlap is its exact inverse."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.durations import frames_of
from sdxl_mel.errors import InputError
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.options import Format
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.blend import cut_starts
from sdxl_mel.sound.melspec import named_spec

EXAMPLES = """\
  sdxl-mel cut long.png --overlap 25% --out tiles
  sdxl-mel cut foreign.png --format minimidi --overlap 192 --out tiles"""


class Config(StageConfig):
    """Cut a long spectrogram picture into overlapping tiles."""

    picture: Annotated[Path, Show.POSITIONAL]
    """the long picture"""
    out: Path
    """folder for the tiles 0001.png, 0002.png, ..."""
    overlap: str = "25%"
    """how much neighbouring tiles share: 25% of a tile, 192 frames or 1.5s"""
    format: Format | None = None
    """format of a picture that does not say how it was made"""
    width: int | None = Field(None, gt=0)
    """frames of a tile; none = the tile width of the picture's spec"""


class Report(StageReport):
    """The tiles that were written."""

    out: Path
    widths: tuple[int, ...]
    overlap: int

    def summary(self) -> str:
        """Return the number of tiles and what is unusual about the last."""
        text = f"{len(self.widths)} tiles of {self.widths[0]} frames in {self.out}, each sharing {self.overlap} frames"
        narrower = self.widths[-1] < self.widths[0]
        return f"{text}; the last has only {self.widths[-1]}" if narrower else text


def run(config: Config) -> Report:
    """Cut the picture; the last tile is narrower where the tiles do not fill the picture, so nothing is lost."""
    stated = named_spec(config.format) if config.format else None
    picture = read_spectrogram(config.picture, stated)
    frames = picture.levels.shape[1]
    width = min(config.width or picture.spec.width, frames)
    overlap = frames_of(config.overlap, picture.spec, "--overlap")
    starts = cut_starts(frames, width, overlap)
    names = [f"{number:04}.png" for number in range(1, len(starts) + 1)]
    _refuse_other_pictures(config.out, names)
    source = sha256_file(config.picture)
    for name, start in zip(names, starts):
        levels = picture.levels[:, start : start + width]
        record = Record(stage="cut", settings={"start": start, "overlap": overlap}, inputs={"picture": source})
        write_spectrogram(config.out / name, Spectrogram(levels, picture.spec, record))
    return Report(out=config.out, widths=tuple(min(width, frames - start) for start in starts), overlap=overlap)


def _refuse_other_pictures(folder: Path, names: list[str]) -> None:
    others = {path.name for path in folder.glob("*.png")} - set(names)
    if others:
        raise InputError(
            f"{folder}: already holds {min(others)}, which would be taken for one of the {len(names)} tiles; "
            "choose another --out or empty it"
        )

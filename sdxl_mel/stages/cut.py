"""`sdxl-mel cut`: a long picture to overlapping tiles; `stitch` with the same overlap is its exact inverse."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.options import Format

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
    """Cut the picture."""
    from sdxl_mel.tiles import cut_picture

    stated = sdxl_mel.named_spec(config.format) if config.format else None
    widths, overlap = cut_picture(config.picture, config.out, overlap=config.overlap, width=config.width, stated=stated)
    return Report(out=config.out, widths=widths, overlap=overlap)

"""`sdxl-mel stitch`: tiles to one long picture, and its sound from one inversion over the whole."""

from pathlib import Path
from typing import Annotated, NamedTuple

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.options import Format, Method

EXAMPLES = """\
  sdxl-mel stitch tiles --out long.png --wav long.wav
  sdxl-mel stitch a.png b.png c.png --overlap 25% --out long.png --plot long-seams.png
  sdxl-mel stitch 1.png 2.png --format minimidi --overlap 192 --out long.png --wav long.flac"""


class Config(StageConfig):
    """Join tiles to one long picture and its sound."""

    tiles: Annotated[tuple[Path, ...], Show.POSITIONAL, UNRECORDED]
    """the tiles in order, or folders of them"""
    out: Annotated[Path, UNRECORDED]
    """the long picture"""
    wav: Annotated[Path | None, UNRECORDED] = None
    """also write the sound: .wav, .flac, .ogg, .opus or .mp3"""
    overlap: str = "auto"
    """how much neighbouring tiles share: 25% of a tile, 192 frames, 1.5s, or auto: the overlap they were cut with, else
    the one within a beat of 25% at which their onsets coincide"""
    crossfade: str | None = None
    """fade over the middle of the overlap only: a percentage of a tile, frames or seconds; none = the whole overlap"""
    loop: bool = False
    """lay the end over the start too, so that the piece repeats without a seam"""
    format: Annotated[Format | None, UNRECORDED] = None
    """format of tiles that do not say how they were made"""
    plot: Annotated[Path | None, UNRECORDED] = None
    """also draw the long picture with a time axis and the seams marked, as .png or .svg"""
    method: Annotated[Method, Show.ADVANCED, UNRECORDED] = "best"
    """how the sound is made from the picture"""
    seed: Annotated[int, Show.ADVANCED, UNRECORDED] = 0
    """seed of the sound's phase"""


class Join(NamedTuple):
    """One join: its first frame, its length in frames, and how much it stands out."""

    start: int
    overlap: int
    score: float | None


class Report(StageReport):
    """The long picture and how much its joins stand out."""

    out: Path
    seconds: float
    seconds_per_frame: float
    seams: tuple[Join, ...]
    junction: float | None = None
    wav: Path | None = None

    def summary(self) -> str:
        """Return a line a join with its z-score: 0 is an ordinary moment of the piece, above 2 stands out."""
        lines = [f"{self.out}: {self.seconds:.2f} s from {len(self.seams) + 1} tiles"]
        for number, seam in enumerate(self.seams, 1):
            moment, length = seam.start * self.seconds_per_frame, seam.overlap * self.seconds_per_frame
            lines.append(f"  join {number} at {moment:.2f} s over {length:.2f} s: seam z {_shown(seam.score)}")
        if self.junction is not None:
            lines.append(f"  loop junction: flux z {_shown(self.junction)}")
        if self.wav:
            lines.append(f"{self.wav}: its sound")
        return "\n".join(lines)


def run(config: Config) -> Report:
    """Join the tiles, write the picture, then the sound and the plot where asked."""
    from sdxl_mel.tiles import stitch_tiles, tiles_given, write_stitched

    others = [path for path in (config.out, config.plot) if path is not None]
    stated = sdxl_mel.named_spec(config.format) if config.format else None
    found = tiles_given(config.tiles, others, stated, loop=config.loop)
    stitched = stitch_tiles([*found.tiles.values()], config.overlap, config.crossfade, loop=config.loop)
    write_stitched(
        stitched,
        found,
        config.out,
        config.recorded(),
        sound=config.wav,
        plot=config.plot,
        method=config.method,
        seed=config.seed,
        loop=config.loop,
    )
    seconds_per_frame = found.spec.hop_length / found.spec.sample_rate
    return Report(
        out=config.out,
        seconds=stitched.levels.shape[1] * seconds_per_frame,
        seconds_per_frame=seconds_per_frame,
        seams=tuple(Join(seam.start, seam.overlap, seam.score) for seam in stitched.seams),
        junction=stitched.junction,
        wav=config.wav,
        skipped=found.skipped,
    )


def _shown(score: float | None) -> str:
    return "unknown (too little music beside it)" if score is None else f"{score:+.2f}"

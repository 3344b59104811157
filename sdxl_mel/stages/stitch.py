"""`sdxl-mel stitch`: tiles to one long picture, and its sound from one inversion over the whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import JsonValue

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.durations import frames_of
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.finding import tile_paths
from sdxl_mel.files.loops import write_loop
from sdxl_mel.files.spectrogram import Spectrogram, read_tiles, write_spectrogram
from sdxl_mel.options import Format, Method
from sdxl_mel.progress import log
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.report.spectrogram_figure import figure_bytes, spectrogram_figure
from sdxl_mel.sound.melspec import named_spec
from sdxl_mel.sound.stitching import Seam, likely_overlap, stitch

EXAMPLES = """\
  sdxl-mel stitch tiles --out long.png --wav long.wav
  sdxl-mel stitch a.png b.png c.png --overlap 25% --out long.png --plot long-seams.png
  sdxl-mel stitch 1.png 2.png --format minimidi --overlap 192 --out long.png --wav long.flac"""

AUTO_OVERLAP = "25%"
"""Where a search for the overlap starts when the tiles do not say how they overlap."""


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


class Report(StageReport):
    """The long picture and how much its joins stand out."""

    out: Path
    seconds: float
    seconds_per_frame: float
    seams: tuple[Seam, ...]
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
    from sdxl_mel.sound.inversion.methods import invert

    others = [path for path in (config.out, config.plot) if path is not None]
    found, unusable = tile_paths(config.tiles, leave_out=others)
    read, unread = read_tiles(found, config.tiles, named_spec(config.format) if config.format else None)
    skipped = (*unread, *unusable)
    made = {path for path in read if path.parent in config.tiles and _is_made_of(read[path], found)}
    if made:
        log(f"left out, stitched of other tiles there: {', '.join(sorted(path.name for path in made))}")
    paths = [path for path in read if path not in made]
    tiles = [read[path] for path in paths]
    if len(paths) < 2 and skipped:
        raise InputError(f"{len(paths)} tile that can be read; the first that cannot: {skipped[0].why}")
    if len(paths) < 2 and not config.loop:
        raise InputError(f"{len(paths)} tile to stitch; give two or more, a folder of them, or --loop to close one")
    spec = tiles[0].spec
    overlaps = [_overlap(config.overlap, one, two) for one, two in zip(tiles, tiles[1:])]
    stitched = stitch(
        [tile.levels for tile in tiles],
        overlaps,
        spec,
        crossfade=frames_of(config.crossfade, spec, "--crossfade") if config.crossfade else None,
        closing=_overlap(config.overlap, tiles[-1], tiles[0]) if config.loop else None,
    )
    seams = [(seam.start, seam.overlap) for seam in stitched.seams]
    record = Record(
        stage="stitch",
        settings=config.recorded() | {"seams": [list(seam) for seam in seams]},
        inputs={f"{number:04} {path.name}": sha256_file(path) for number, path in enumerate(paths, 1)},
    )
    write_spectrogram(config.out, Spectrogram(stitched.levels, spec, record))
    if config.wav:
        samples = invert(stitched.levels, spec, method=config.method, seed=config.seed, loop=config.loop)
        how: dict[str, JsonValue] = {"method": config.method, "seed": config.seed}
        heard = record.model_copy(update={"settings": record.settings | how})
        write_audio(config.wav, samples, spec.sample_rate, record=heard, loop=config.loop)
        if config.loop:
            write_loop(config.wav, stitched.levels, spec)
    if config.plot:
        write_bytes(config.plot, figure_bytes(spectrogram_figure(stitched.levels, spec, seams), config.plot))
    seconds_per_frame = spec.hop_length / spec.sample_rate
    return Report(
        out=config.out,
        seconds=stitched.levels.shape[1] * seconds_per_frame,
        seconds_per_frame=seconds_per_frame,
        seams=stitched.seams,
        junction=stitched.junction,
        wav=config.wav,
        skipped=skipped,
    )


def _is_made_of(picture: Spectrogram, paths: Sequence[Path]) -> bool:
    """Return whether a picture is the result of an earlier stitch of pictures that are among these."""
    if picture.record is None or picture.record.stage != "stitch":
        return False
    return {name.split(" ", 1)[1] for name in picture.record.inputs} <= {path.name for path in paths}


def _overlap(asked: str, earlier: Spectrogram, later: Spectrogram) -> int:
    """Return the frames two tiles share: as asked, as recorded when they were cut, or as their sound suggests."""
    spec = earlier.spec
    if asked != "auto":
        return frames_of(asked, spec, "--overlap")
    if later.record is not None and later.record.stage == "cut":
        recorded = later.record.settings.get("overlap")
        if isinstance(recorded, int) and recorded:
            return recorded
    return likely_overlap(earlier.levels, later.levels, spec, frames_of(AUTO_OVERLAP, spec, "--overlap"))


def _shown(score: float | None) -> str:
    return "unknown (too little music beside it)" if score is None else f"{score:+.2f}"

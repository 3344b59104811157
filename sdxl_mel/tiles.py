"""Long pictures and their tiles, file by file: cut apart, and stitched together with their sound and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.config import Skipped
from sdxl_mel.durations import frames_of
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.finding import tile_paths
from sdxl_mel.files.loops import write_loop
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, read_tiles, write_spectrogram
from sdxl_mel.options import Method
from sdxl_mel.progress import log
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.report.spectrogram_figure import figure_bytes, spectrogram_figure
from sdxl_mel.sound.blend import cut_starts
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.stitching import Stitched, likely_overlap, stitch

AUTO_OVERLAP = "25%"
"""Where a search for the overlap starts when the tiles do not say how they overlap."""


def cut_picture(
    path: Path, out: Path, *, overlap: str, width: int | None, stated: MelSpec | None
) -> tuple[tuple[int, ...], int]:
    """Cut a long picture into the tiles 0001.png, ... of a folder; return their widths and the overlap in frames.

    The last tile is narrower where the tiles do not fill the picture, so nothing is lost. `width` is by default that of
    the picture's spec, `stated` the spec of a picture that does not say it. Raises InputError for a folder with other
    pictures.
    """
    picture = read_spectrogram(path, stated)
    frames = picture.levels.shape[1]
    width = min(width or picture.spec.width, frames)
    shared = frames_of(overlap, picture.spec, "--overlap")
    starts = cut_starts(frames, width, shared)
    names = [f"{number:04}.png" for number in range(1, len(starts) + 1)]
    _refuse_other_pictures(out, names)
    source = sha256_file(path)
    for name, start in zip(names, starts):
        levels = picture.levels[:, start : start + width]
        record = Record(stage="cut", settings={"start": start, "overlap": shared}, inputs={"picture": source})
        write_spectrogram(out / name, Spectrogram(levels, picture.spec, record))
    return tuple(min(width, frames - start) for start in starts), shared


def _refuse_other_pictures(folder: Path, names: list[str]) -> None:
    others = {path.name for path in folder.glob("*.png")} - set(names)
    if others:
        raise InputError(
            f"{folder}: already holds {min(others)}, which would be taken for one of the {len(names)} tiles; "
            "choose another --out or empty it"
        )


@dataclass(frozen=True)
class TilesFound:
    """The tiles to stitch, by their path, in order, and what is left out."""

    tiles: Mapping[Path, Spectrogram]
    skipped: tuple[Skipped, ...]

    @property
    def spec(self) -> MelSpec:
        """Return the spec of the tiles."""
        return next(iter(self.tiles.values())).spec


def tiles_given(given: Sequence[Path], others: Sequence[Path], stated: MelSpec | None, *, loop: bool) -> TilesFound:
    """Read the tiles that a command line names, files or folders of them.

    `others` and earlier stitches of tiles in the same folder are no tiles, `stated` is the spec of tiles that do not
    say it. Raises InputError for fewer than two, for a `loop` fewer than one.
    """
    found, unusable = tile_paths(given, leave_out=others)
    read, unread = read_tiles(found, given, stated)
    skipped = (*unread, *unusable)
    made = {path for path in read if path.parent in given and _is_made_of(read[path], found)}
    if made:
        log(f"left out, stitched of other tiles there: {', '.join(sorted(path.name for path in made))}")
    tiles = {path: tile for path, tile in read.items() if path not in made}
    if len(tiles) < 2 and skipped:
        raise InputError(f"{len(tiles)} tile that can be read; the first that cannot: {skipped[0].why}")
    if len(tiles) < 2 and not loop:
        raise InputError(f"{len(tiles)} tile to stitch; give two or more, a folder of them, or --loop to close one")
    return TilesFound(tiles, skipped)


def _is_made_of(picture: Spectrogram, paths: Sequence[Path]) -> bool:
    """Return whether a picture is the result of an earlier stitch of pictures that are among these."""
    if picture.record is None or picture.record.stage != "stitch":
        return False
    return {name.split(" ", 1)[1] for name in picture.record.inputs} <= {path.name for path in paths}


def stitch_tiles(tiles: Sequence[Spectrogram], overlap: str, crossfade: str | None, *, loop: bool) -> Stitched:
    """Return tiles as one long picture; durations are as settings have them, `overlap` may be `auto`."""
    spec = tiles[0].spec
    return stitch(
        [tile.levels for tile in tiles],
        [_overlap(overlap, one, two) for one, two in zip(tiles, tiles[1:])],
        spec,
        crossfade=frames_of(crossfade, spec, "--crossfade") if crossfade else None,
        closing=_overlap(overlap, tiles[-1], tiles[0]) if loop else None,
    )


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


def write_stitched(
    stitched: Stitched,
    found: TilesFound,
    out: Path,
    settings: Mapping[str, JsonValue],
    *,
    sound: Path | None,
    plot: Path | None,
    method: Method,
    seed: int,
    loop: bool,
) -> None:
    """Write the long picture, and where asked its sound, of a loop the loop too, and a plot with the seams marked.

    `settings` are what the record says.
    """
    spec, seams = found.spec, [(seam.start, seam.overlap) for seam in stitched.seams]
    record = Record(
        stage="stitch",
        settings={**settings, "seams": [list(seam) for seam in seams]},
        inputs={f"{number:04} {path.name}": sha256_file(path) for number, path in enumerate(found.tiles, 1)},
    )
    write_spectrogram(out, Spectrogram(stitched.levels, spec, record))
    if sound:
        samples = invert(stitched.levels, spec, method=method, seed=seed, loop=loop)
        how: dict[str, JsonValue] = {"method": method, "seed": seed}
        heard = record.model_copy(update={"settings": record.settings | how})
        write_audio(sound, samples, spec.sample_rate, record=heard, loop=loop)
        if loop:
            write_loop(sound, stitched.levels, spec)
    if plot:
        write_bytes(plot, figure_bytes(spectrogram_figure(stitched.levels, spec, seams), plot))

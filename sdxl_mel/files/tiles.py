"""Folders of tiles: which pictures belong to a piece, in which order, and whether they belong together."""

import re
from collections.abc import Sequence
from pathlib import Path

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram
from sdxl_mel.sound.melspec import MelSpec, require_equal


def tile_paths(given: Sequence[Path], leave_out: Sequence[Path] = ()) -> list[Path]:
    """Return the pictures named in `given`; a folder stands for its PNGs, 2.png before 10.png.

    `leave_out` are pictures that may lie in such a folder and are no tiles. Raises InputError for an empty folder.
    """
    others = {path.resolve() for path in leave_out}
    paths: list[Path] = []
    for place in given:
        if not place.is_dir():
            paths.append(place)
            continue
        inside = [path for path in sorted(place.glob("*.png"), key=_natural) if path.resolve() not in others]
        if not inside:
            raise InputError(f"{place}: no PNG pictures in this folder; give the folder that holds the tiles")
        paths += inside
    return paths


def read_tiles(paths: Sequence[Path], stated: MelSpec | None = None) -> list[Spectrogram]:
    """Read pictures that are to be joined. Raises MismatchError that lists how one of them differs from the first."""
    tiles = [read_spectrogram(path, stated) for path in paths]
    for path, tile in zip(paths[1:], tiles[1:]):
        require_equal(tiles[0].spec, tile.spec, str(paths[0]), str(path))
        here, there = tiles[0].levels.shape[2], tile.levels.shape[2]
        if here != there:
            raise MismatchError(
                f"{paths[0]} and {path} have different channel layouts: {here} channels against {there}; "
                "make both from mono or both from stereo sound"
            )
    return tiles


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts runs of digits by their number."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

"""Which kind of source was given, found out or named, and its tracks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sdxl_mel.dataset.folder_source import ARROW_NAMES, METADATA_NAMES, arrow_source, audiofolder_source, folder_source
from sdxl_mel.dataset.rows import TABLE_SUFFIXES, open_table
from sdxl_mel.dataset.table_source import (
    MUSICCAPS_COLUMNS,
    SONG_DESCRIBER_COLUMNS,
    musiccaps_source,
    song_describer_source,
    table_source,
)
from sdxl_mel.dataset.tracks import SourceList
from sdxl_mel.errors import InputError
from sdxl_mel.files.dataset import is_dataset

Kind = Literal["auto", "folder", "table", "song-describer", "musiccaps", "audiofolder", "datasets", "demo"]


def find_tracks(
    place: Path,
    kind: Kind,
    out: Path,
    *,
    audio_dir: Path | None,
    tags: Path | None,
    columns: Mapping[str, str],
    valid_subset: bool,
    uncaptioned: bool,
) -> SourceList:
    """Return the tracks of a source of files. Raises InputError for what is no source, or none of that kind."""
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; give a folder of music or a table of captions")
    found = kind_of(place) if kind == "auto" else kind
    if found in ("folder", "audiofolder", "datasets") and not place.is_dir():
        raise InputError(f"{place}: a file; --source {found} reads a folder")
    match found:
        case "folder":
            return folder_source(place, out, uncaptioned)
        case "audiofolder":
            return audiofolder_source(place, columns)
        case "datasets":
            return arrow_source(place, columns)
        case "song-describer":
            return song_describer_source(_table_in(place, "song_describer.csv"), audio_dir, tags, valid_subset, columns)
        case "musiccaps":
            return musiccaps_source(_table_in(place, "musiccaps-public.csv"), audio_dir, columns)
        case _:
            return table_source(_table_in(place, None), audio_dir, columns)


def kind_of(place: Path) -> Kind:
    """Say what kind of source a file or folder is. Raises InputError for a dataset that is prepared already."""
    if place.is_file():
        names = set(open_table(place).columns)
        if names >= SONG_DESCRIBER_COLUMNS:
            return "song-describer"
        return "musiccaps" if names >= MUSICCAPS_COLUMNS else "table"
    if is_dataset(place):
        raise InputError(f"{place}: a dataset that is prepared already; give it to sdxl-mel cache")
    if any((place / name).is_file() for name in ARROW_NAMES):
        return "datasets"
    if (place / "song_describer.csv").is_file():
        return "song-describer"
    if any(place.rglob(name) for name in METADATA_NAMES if next(place.rglob(name), None)):
        return "audiofolder"
    return "folder"


def _table_in(place: Path, expected: str | None) -> Path:
    """Return the table itself, or the one in a folder."""
    if place.is_file():
        return place
    if expected is not None and (place / expected).is_file():
        return place / expected
    tables = sorted(path for path in place.iterdir() if path.suffix in TABLE_SUFFIXES)
    if len(tables) != 1:
        listed = ", ".join(path.name for path in tables) or "none"
        raise InputError(f"{place}: expected one table here, found {listed}; give the table itself")
    return tables[0]

"""The tracks of a source: of files, whose kind is found out or named, or of the built-in corpus."""

from pathlib import Path

from sdxl_mel.corpus.tracks import Split, plan_tracks
from sdxl_mel.dataset.folder_source import ARROW_NAMES, METADATA_NAMES, arrow_source, audiofolder_source, folder_source
from sdxl_mel.dataset.settings import DemoSource, FileSource, SourceKind
from sdxl_mel.dataset.table_source import (
    MUSICCAPS_COLUMNS,
    SONG_DESCRIBER_COLUMNS,
    TABLE_SUFFIXES,
    musiccaps_source,
    open_table,
    song_describer_source,
    table_source,
)
from sdxl_mel.dataset.tracks import SourceList, SourceTrack
from sdxl_mel.errors import InputError
from sdxl_mel.files.dataset import is_dataset

DEMO_SHARES: dict[Split, float] = {
    "train": 0.4,
    "validation": 0.03,
    "test-seen": 0.18,
    "test-unseen": 0.155,
    "regularization": 0.235,
}
"""Much to test with: rendering is cheap, and distances between sets of a hundred clips are too rough to compare."""
DEMO_LICENCE = "public domain scores; rendered with TimGM6mb (GPL-2)"


def find_tracks(source: FileSource, out: Path) -> SourceList:
    """Return the tracks of a source, leaving out what lies in `out`.

    Raises InputError for what is no source, or none of that kind.
    """
    place = source.place
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; give a folder of music or a table of captions")
    kind = kind_of(place) if source.kind == "auto" else source.kind
    if kind in ("folder", "audiofolder", "datasets") and not place.is_dir():
        raise InputError(f"{place}: a file; --source {kind} reads a folder")
    match kind:
        case "folder":
            return folder_source(place, out, source.uncaptioned)
        case "audiofolder":
            return audiofolder_source(place, source.columns)
        case "datasets":
            return arrow_source(place, source.columns)
        case "song-describer":
            table = _table_in(place, "song_describer.csv")
            return song_describer_source(table, source.audio_dir, source.tags, source.valid_subset, source.columns)
        case "musiccaps":
            return musiccaps_source(_table_in(place, "musiccaps-public.csv"), source.audio_dir, source.columns)
        case _:
            return table_source(_table_in(place, None), source.audio_dir, source.columns)


def demo_tracks(source: DemoSource, seconds: float) -> SourceList:
    """Return planned tracks of at least `seconds`, shared out by DEMO_SHARES, at least one a split.

    Their captions are true by construction.
    """
    found = SourceList([])
    for split, share in DEMO_SHARES.items():
        count = max(1, round(source.tracks * share))
        for plan in plan_tracks(split, count, seconds=seconds, group=source.group, seed=source.seed):
            name, _, part = split.partition("-")
            found.tracks.append(
                SourceTrack(
                    identifier=plan.identifier,
                    audio=plan,
                    captions=plan.captions,
                    licence=DEMO_LICENCE,
                    split=name,
                    group=part,
                    instruments=plan.instruments,
                )
            )
    return found


def kind_of(place: Path) -> SourceKind:
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

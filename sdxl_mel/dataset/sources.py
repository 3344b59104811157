"""The tracks of a source: of files, whose kind is found out or named, or of the built-in corpus."""

from dataclasses import replace
from pathlib import Path

from sdxl_mel.config import Skipped
from sdxl_mel.corpus.tracks import Split, plan_tracks
from sdxl_mel.dataset.folder_source import ARROW_NAMES, arrow_source, folder_source, metadata_tables
from sdxl_mel.dataset.settings import DemoSource, FileSource, SourceKind
from sdxl_mel.dataset.table_source import (
    MUSICCAPS_COLUMNS,
    SONG_DESCRIBER_COLUMNS,
    musiccaps_source,
    song_describer_source,
    table_source,
)
from sdxl_mel.dataset.tracks import SPLIT_NAMES, SourceList, SourceTrack, listed
from sdxl_mel.errors import InputError
from sdxl_mel.files.dataset import is_dataset
from sdxl_mel.files.finding import find_files
from sdxl_mel.files.tables import TABLE_SUFFIXES, open_table

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
    kind = kind_of(place, out) if source.kind == "auto" else source.kind
    if kind in ("folder", "audiofolder", "datasets") and not place.is_dir():
        raise InputError(f"{place}: a file; --source {kind} reads a folder")
    root = source.audio_dir or (place if place.is_dir() else place.parent)
    return _settled(_described(source, kind, out), root, kind, source.uncaptioned)


def _described(source: FileSource, kind: SourceKind, out: Path) -> SourceList:
    """Return the tracks as their source describes them."""
    place = source.place
    match kind:
        case "folder":
            return folder_source(place, out, None)
        case "audiofolder":
            return folder_source(place, out, source.columns)
        case "datasets":
            return arrow_source(place, source.columns)
        case "song-describer":
            table = _table_in(place, "song_describer.csv")
            return song_describer_source(table, source.audio_dir, source.tags, source.valid_subset, source.columns)
        case "musiccaps":
            return musiccaps_source(_table_in(place, "musiccaps-public.csv"), source.audio_dir, source.columns)
        case _:
            return table_source(_table_in(place, None), source.audio_dir, source.columns)


def _settled(found: SourceList, root: Path, kind: SourceKind, uncaptioned: bool) -> SourceList:
    """Apply what holds for every kind of source: tracks without any caption are skipped unless `uncaptioned`, and a
    split is what the source calls one, else what a folder between `root` and the audio is called.
    """
    tracks: list[SourceTrack] = []
    unknown: list[str] = []
    for track in found.tracks:
        if not uncaptioned and not any(text.strip() for text in track.captions):
            stem = Path(track.identifier).stem
            beside = f": no {stem}.txt or {stem}.json with one" if kind == "folder" else ""
            why = f"no caption{beside} (--uncaptioned keeps it)"
            found.skipped.append(Skipped(what=track.identifier, why=why))
            continue
        if track.split and track.split.lower() not in SPLIT_NAMES:
            unknown.append(f"{track.identifier} ({track.split})")
        split = SPLIT_NAMES.get(track.split.lower(), "") or _split_of_folders(track, root)
        tracks.append(replace(track, split=split))
    if unknown:
        found.notes.append(f"{len(unknown)} tracks are of a split of none of our names: {listed(unknown)}")
    return SourceList(tracks, found.skipped, found.notes)


def _split_of_folders(track: SourceTrack, root: Path) -> str:
    """Return the split that the folders of a file are named for, the innermost first, "" if none is."""
    if not isinstance(track.audio, Path) or not track.audio.is_relative_to(root):
        return ""
    folders = [name.lower() for name in track.audio.relative_to(root).parts[-2::-1]]
    return next((SPLIT_NAMES[name] for name in folders if name in SPLIT_NAMES), "")


def demo_tracks(source: DemoSource, seconds: float) -> SourceList:
    """Return planned tracks of at least `seconds`, shared out by DEMO_SHARES, at least one a split.

    Their captions are true by construction.
    """
    found = SourceList()
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


def kind_of(place: Path, out: Path | None = None) -> SourceKind:
    """Say what kind of source a file, or a folder without `out`, is. Raises InputError for a prepared dataset."""
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
    return "audiofolder" if metadata_tables(find_files(place, (), out).others) else "folder"


def _table_in(place: Path, expected: str | None) -> Path:
    """Return the table itself, or the one in a folder."""
    if place.is_file():
        return place
    if expected is not None and (place / expected).is_file():
        return place / expected
    tables = sorted(path for path in place.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    if len(tables) != 1:
        listed = ", ".join(path.name for path in tables) or "none"
        raise InputError(f"{place}: expected one table here, found {listed}; give the table itself")
    return tables[0]

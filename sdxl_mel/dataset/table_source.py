"""Sources that are a table beside audio files: any CSV, TSV or JSONL, the Song Describer layout, MusicCaps."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdxl_mel.config import Skipped
from sdxl_mel.dataset.rows import Row, Table, columns_of, open_table
from sdxl_mel.dataset.tracks import SPLIT_NAMES, SourceList, SourceTrack
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.dataset import is_inside

SONG_DESCRIBER_COLUMNS = {"caption_id", "track_id", "caption", "path", "is_valid_subset"}
MUSICCAPS_COLUMNS = {"ytid", "caption", "aspect_list"}
EVALUATION_ONLY = (
    "The authors of the Song Describer Dataset intend it for evaluation only: a model trained on it cannot be compared "
    "on its benchmark. Captions are CC BY-SA 4.0, the audio has a licence a track."
)
_LICENCE_LINE = re.compile(r"(?P<track>\d+)(?:\.2min)?\.mp3|(?P<licence>https?://\S*(?:creativecommons|artlibre)\S*)")

Finder = Callable[[Row], Path | str]
"""Returns the audio file of a row, or the reason why there is none."""


@dataclass(frozen=True)
class Reading:
    """How one table is read: what each column is for, which file a row means, and what is known beside the table."""

    table: Table
    columns: Mapping[str, str]
    find: Finder
    tags: Mapping[str, tuple[str, ...]]
    licences: Mapping[str, str]


def table_source(path: Path, audio_dir: Path | None, stated: Mapping[str, str]) -> SourceList:
    """Read any table with a column of audio files and one of captions."""
    table = open_table(path)
    columns = columns_of(table, stated, needed=("audio", "caption"))
    root = audio_dir or path.parent
    return _read(Reading(table, columns, lambda row: _inside(root, row.text(columns["audio"])), {}, {}))


def song_describer_source(
    path: Path, audio_dir: Path | None, tags: Path | None, valid_subset: bool, stated: Mapping[str, str]
) -> SourceList:
    """Read song_describer.csv; `34/1004034.mp3` is found as `audio/34/1004034.2min.mp3` too."""
    table = open_table(path)
    needed = {"id": "track_id", "caption": "caption", "audio": "path", "artist": "artist_id"}
    columns = columns_of(
        table,
        {role: name for role, name in needed.items() if name in table.columns} | dict(stated),
        ("audio", "caption", "id"),
    )
    root = audio_dir or path.parent
    tsv = tags or _beside(path, "song_describer.mtg-jamendo.tsv")
    licences = _beside(path, "audio_licenses.txt")
    reading = Reading(
        table,
        columns,
        lambda row: _two_minutes(root, row.text(columns["audio"])),
        jamendo_tags(tsv) if tsv else {},
        track_licences(licences) if licences else {},
    )
    found = _read(reading, (lambda row: row.text("is_valid_subset") == "True") if valid_subset else None)
    found.notes.append(EVALUATION_ONLY)
    return found


def musiccaps_source(path: Path, audio_dir: Path | None, stated: Mapping[str, str]) -> SourceList:
    """Read a MusicCaps-style csv whose clips lie in a folder, named by their YouTube id."""
    table = open_table(path)
    columns = columns_of(table, {"id": "ytid", "tags": "aspect_list"} | dict(stated), needed=("id", "caption"))
    root = audio_dir or path.parent
    clips = {_youtube_id(file.stem): file for file in sorted(root.rglob("*")) if file.suffix.lower() in AUDIO_SUFFIXES}

    def find(row: Row) -> Path | str:
        return clips.get(row.text(columns["id"])) or f"no clip named {row.text(columns['id'])} under {root.name}"

    return _read(Reading(table, columns, find, {}, {}))


def jamendo_tags(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the tags of every track in an MTG-Jamendo tsv: tab-separated from the sixth column on."""
    tags: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot read these tags ({error.strerror})") from error
    for line in lines[1:]:
        cells = line.split("\t")
        if len(cells) > 5:
            tags[cells[0].removeprefix("track_").lstrip("0")] = tuple(filter(None, cells[5:]))
    return tags


def track_licences(path: Path) -> dict[str, str]:
    """Return the licence of every track in a list that names a file and, somewhere behind it, a licence address."""
    licences: dict[str, str] = {}
    track = ""
    for match in _LICENCE_LINE.finditer(path.read_text(encoding="utf-8", errors="replace")):
        track = match["track"] or track
        if match["licence"] and track:
            licences.setdefault(track, match["licence"].rstrip(".,;)"))
    return licences


def texts_in(value: object) -> tuple[str, ...]:
    """Return the texts of a cell: a list, a list written as text ("['a', 'b']"), or one text.

    >>> texts_in("['slow', 'piano']")
    ('slow', 'piano')
    """
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        value = _list_in(value.strip())
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value if item is not None)
    return () if value is None else (str(value),)


def _list_in(text: str) -> object:
    """Return the list written as JSON or as Python, or the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _read(reading: Reading, wanted: Callable[[Row], bool] | None = None) -> SourceList:
    """Group rows into tracks: rows of one track add their captions."""
    found = SourceList([])
    tracks: dict[str, SourceTrack] = {}
    for row in reading.table.rows(found.skipped):
        if wanted is not None and not wanted(row):
            continue
        track = _track(reading, row)
        known = tracks.get(track.identifier) if isinstance(track, SourceTrack) else None
        if isinstance(track, str):
            found.skipped.append(Skipped(what=row.where, why=track))
        elif known is not None and known.audio != track.audio:
            why = f"duplicate id {track.identifier!r}: it is {_name(known)} already, here it is {_name(track)}"
            found.skipped.append(Skipped(what=row.where, why=why))
        elif known is not None:
            tracks[track.identifier] = replace(known, captions=known.captions + track.captions)
        else:
            tracks[track.identifier] = track
    found.tracks = list(tracks.values())
    return found


def _track(reading: Reading, row: Row) -> SourceTrack | str:
    columns = reading.columns
    audio = reading.find(row)
    if isinstance(audio, str):
        return audio
    identifier = row.text(columns.get("id")) or row.text(columns.get("audio"))
    artist = row.text(columns.get("artist"))
    split = row.text(columns.get("split")).lower()
    tags = texts_in(row.cells.get(columns.get("tags", ""), ""))
    return SourceTrack(
        identifier=identifier,
        audio=audio,
        captions=texts_in(row.cells.get(columns["caption"])),
        tags=tuple(filter(None, tags)) + reading.tags.get(identifier.lstrip("0"), ()),
        artist=artist,
        names=() if artist.isdigit() or not artist else (artist,),
        licence=row.text(columns.get("licence")) or reading.licences.get(identifier, ""),
        split=SPLIT_NAMES.get(split, ""),
        instruments=_listed(row.text(columns.get("instruments"))),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"[,;+]", text) if part.strip())


def _inside(root: Path, name: str) -> Path | str:
    if not name:
        return "no audio file is named"
    if not is_inside(name) and not (Path(name).is_absolute() and Path(name).resolve().is_relative_to(root.resolve())):
        return f"{name!r} points outside {root.name or root}/; refused (move the audio there or set --audio-dir)"
    path = root / name
    return path if path.is_file() else f"audio {name!r} is missing"


def _two_minutes(root: Path, name: str) -> Path | str:
    """Return the first that exists of the names under which the Song Describer audio may lie."""
    first = _inside(root, name)
    if isinstance(first, Path) or not is_inside(name):
        return first
    short = str(Path(name).with_suffix(f".2min{Path(name).suffix}"))
    places: Iterable[Path] = (root / "audio" / short, root / short, root / "audio" / name)
    return next((path for path in places if path.is_file()), f"audio {short!r} is missing")


def _beside(path: Path, name: str) -> Path | None:
    other = path.with_name(name)
    return other if other.is_file() else None


def _name(track: SourceTrack) -> str:
    return track.audio.name if isinstance(track.audio, Path) else track.identifier


def _youtube_id(stem: str) -> str:
    """Return the id in names such as `-0Gj8-vB1q4`, `[-0Gj8-vB1q4]-[30-40]` and `-0Gj8-vB1q4_30_40`."""
    bracketed = re.match(r"\[([\w-]{11})\]", stem)
    return bracketed[1] if bracketed else stem[:11]

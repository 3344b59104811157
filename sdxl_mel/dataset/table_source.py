"""Sources that are a table beside audio files: any CSV, TSV, JSONL or JSON, the Song Describer layout, MusicCaps.

Rows are read one by one; a bad row is skipped with its line and the reason.
"""

import ast
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sdxl_mel.config import Skipped
from sdxl_mel.dataset.tracks import SPLIT_NAMES, SourceList, SourceTrack
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.dataset import is_inside
from sdxl_mel.names import near_miss

DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = {*DELIMITERS, ".jsonl", ".json"}
MAX_CELL_CHARACTERS = 1 << 20

ROLES: dict[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "audio": "audio path file file_name filename audio_path audio_file filepath location wav",
        "caption": "caption captions text texts prompt description main_caption txt",
        "id": "id track_id track ytid name song_id",
        "tags": "tags aspect_list tag genres keywords",
        "artist": "artist artist_id artist_name author composer performer",
        "licence": "licence license",
        "split": "split subset set",
        "instruments": "instruments",
    }.items()
}
"""What a column can be for, and the names by which it is known without `--columns`."""
SONG_DESCRIBER_COLUMNS = {"caption_id", "track_id", "caption", "path", "is_valid_subset"}
MUSICCAPS_COLUMNS = {"ytid", "caption", "aspect_list"}
EVALUATION_ONLY = (
    "The authors of the Song Describer Dataset intend it for evaluation only: a model trained on it cannot be compared "
    "on its benchmark. Captions are CC BY-SA 4.0, the audio has a licence a track."
)
_LICENCE_LINE = re.compile(r"(?P<track>\d+)(?:\.2min)?\.mp3|(?P<licence>https?://\S*(?:creativecommons|artlibre)\S*)")


@dataclass(frozen=True)
class Row:
    """One row: where it stands, and its cells by column name."""

    where: str
    cells: Mapping[str, Any]

    def text(self, column: str | None) -> str:
        """Return a cell as text without space around it, "" where there is none."""
        value = self.cells.get(column) if column else None
        return "" if value is None else str(value).strip()


@dataclass(frozen=True)
class Table:
    """A table file and its column names."""

    path: Path
    columns: tuple[str, ...]

    def rows(self, skipped: list[Skipped]) -> Iterator[Row]:
        """Yield the rows; append to `skipped` those that cannot be read."""
        if self.path.suffix in DELIMITERS:
            yield from _delimited(self.path, self.columns, skipped)
        else:
            yield from _json_lines(self.path, skipped)


def open_table(path: Path) -> Table:
    """Read the column names of a table. Raises InputError or FormatError for what is none."""
    if path.suffix not in TABLE_SUFFIXES:
        raise InputError(f"{path}: expected a table: {', '.join(sorted(TABLE_SUFFIXES))}")
    if path.suffix in DELIMITERS:
        with _opened(path) as file:
            try:
                header = next(csv.reader(file, delimiter=DELIMITERS[path.suffix]), None)
            except csv.Error as error:
                raise FormatError(f"{path}: not a table ({error})") from error
        if not header:
            raise FormatError(f"{path}: empty; its first line must name the columns")
        return Table(path, tuple(name.strip() for name in header))
    first = next(_json_lines(path, []), None)
    if first is None:
        raise FormatError(f"{path}: holds no row that is a JSON object")
    return Table(path, tuple(first.cells))


def columns_of(table: Table, stated: Mapping[str, str], needed: tuple[str, ...]) -> dict[str, str]:
    """Return the column of every role that the table has; `stated` ({role: column}) wins over known names.

    Raises InputError that names the columns, the near miss and the flag for what is needed and absent.
    """
    listed = f"its columns are {', '.join(table.columns)}"
    for role, column in stated.items():
        if role not in ROLES:
            raise InputError(f"--columns {role}: unknown{near_miss(role, ROLES)}; known: {', '.join(ROLES)}")
        if column not in table.columns:
            raise InputError(f"{table.path}: no column {column!r}{near_miss(column, table.columns)}; {listed}")
    lower = {name.lower(): name for name in table.columns}
    found = {role: lower[name] for role, names in ROLES.items() for name in reversed(names) if name in lower}
    found |= stated
    for role in needed:
        if role not in found:
            miss = next((hint for name in ROLES[role] if (hint := near_miss(name, table.columns))), "")
            raise InputError(
                f"{table.path}: no column for the {role}{miss}; {listed}; state it with --columns {role}=NAME"
            )
    return found


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise InputError(f"{path}: cannot read this table ({error.strerror})") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module, whose limit is that of the whole program, read cells of MAX_CELL_CHARACTERS."""
    before = csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimited(path: Path, columns: tuple[str, ...], skipped: list[Skipped]) -> Iterator[Row]:
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=DELIMITERS[path.suffix], strict=False)
        next(reader)
        while True:
            line = reader.line_num + 1
            try:
                with _long_cells():
                    cells = next(reader, None)
            except csv.Error as error:
                skipped.append(Skipped(what=f"{path.name}, line {line}", why=f"not a row ({error})"))
                continue
            if cells is None:
                return
            problem = _problem(cells, columns)
            if problem:
                skipped.append(Skipped(what=f"{path.name}, line {line}", why=problem))
            elif cells:
                yield Row(f"{path.name}, line {line}", dict(zip(columns, cells)))


def _problem(cells: list[str], columns: tuple[str, ...]) -> str:
    if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell):
        return "not UTF-8; save the table as UTF-8"
    if cells and len(cells) > len(columns):
        return f"{len(cells)} cells under {len(columns)} columns; put text with commas in quotes"
    return ""


def _json_lines(path: Path, skipped: list[Skipped]) -> Iterator[Row]:
    with _opened(path) as file:
        whole = path.suffix == ".json"
        for number, text in [(1, file.read())] if whole else enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                content = json.loads(text.encode("utf-8", "surrogateescape").decode("utf-8"))
            except ValueError as error:
                skipped.append(Skipped(what=f"{path.name}, line {number}", why=f"not JSON in UTF-8 ({error})"))
                continue
            for index, cells in enumerate(content if whole and isinstance(content, list) else [content], start=1):
                where = f"{path.name}, {'row' if whole else 'line'} {index if whole else number}"
                if isinstance(cells, dict):
                    yield Row(where, cells)
                else:
                    skipped.append(Skipped(what=where, why="not a JSON object"))


Finder = Callable[[Row], Path | str]
"""Returns the audio file of a row, or the reason why there is none."""


def table_source(path: Path, audio_dir: Path | None, stated: Mapping[str, str]) -> SourceList:
    """Read any table with a column of audio files and one of captions."""
    table = open_table(path)
    columns = columns_of(table, stated, needed=("audio", "caption"))
    root = audio_dir or path.parent
    return _read(table, columns, lambda row: _inside(root, row.text(columns["audio"])))


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
    found = _read(
        table,
        columns,
        lambda row: _two_minutes(root, row.text(columns["audio"])),
        tags=jamendo_tags(tsv) if tsv else {},
        licences=track_licences(licences) if licences else {},
        wanted=lambda row: not valid_subset or row.text("is_valid_subset") == "True",
    )
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

    return _read(table, columns, find)


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


def _read(
    table: Table,
    columns: Mapping[str, str],
    find: Finder,
    *,
    tags: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    licences: Mapping[str, str] = MappingProxyType({}),
    wanted: Callable[[Row], bool] = lambda row: True,
) -> SourceList:
    """Group rows into tracks: rows of one track add their captions. `tags` and `licences` are known by track id."""
    found = SourceList([])
    tracks: dict[str, SourceTrack] = {}
    for row in filter(wanted, table.rows(found.skipped)):
        audio = find(row)
        track = _track(row, columns, audio, tags, licences) if isinstance(audio, Path) else audio
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


def _track(
    row: Row, columns: Mapping[str, str], audio: Path, tags: Mapping[str, tuple[str, ...]], licences: Mapping[str, str]
) -> SourceTrack:
    identifier = row.text(columns.get("id")) or row.text(columns.get("audio"))
    artist = row.text(columns.get("artist"))
    return SourceTrack(
        identifier=identifier,
        audio=audio,
        captions=texts_in(row.cells.get(columns["caption"])),
        tags=(*filter(None, texts_in(row.cells.get(columns.get("tags", "")))), *tags.get(identifier.lstrip("0"), ())),
        artist=artist,
        names=() if artist.isdigit() or not artist else (artist,),
        licence=row.text(columns.get("licence")) or licences.get(identifier, ""),
        split=SPLIT_NAMES.get(row.text(columns.get("split")).lower(), ""),
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

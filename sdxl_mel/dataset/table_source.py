"""Sources that are a table beside audio files: any CSV, TSV, JSONL or JSON, the Song Describer layout, MusicCaps.

Rows are read one by one; a bad row is skipped with its line and the reason.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sdxl_mel.config import Skipped
from sdxl_mel.dataset.tracks import SourceList, described, listed
from sdxl_mel.errors import InputError, printable
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.finding import file_named, find_files
from sdxl_mel.files.tables import Row, Table, open_table, texts_in
from sdxl_mel.names import near_miss

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


def columns_of(
    table: Table, stated: Mapping[str, str], needed: tuple[str, ...], usual: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the column of every role that the table has: `stated` ({role: column}), else `usual`, else by known names.

    Raises InputError that names the columns, the near miss and the flag for what is needed and absent.
    """
    columns = f"its columns are {', '.join(table.columns)}"
    for role, column in stated.items():
        if role not in ROLES:
            raise InputError(f"--columns {role}: unknown{near_miss(role, ROLES)}; known: {', '.join(ROLES)}")
        if column not in table.columns:
            raise InputError(f"{table.path}: no column {column!r}{near_miss(column, table.columns)}; {columns}")
    lower = {name.lower(): name for name in table.columns}
    found = {role: lower[name] for role, names in ROLES.items() for name in reversed(names) if name in lower}
    found |= {role: name for role, name in usual.items() if name in table.columns} | dict(stated)
    for role in needed:
        if role not in found:
            miss = next((hint for name in ROLES[role] if (hint := near_miss(name, table.columns))), "")
            raise InputError(
                f"{table.path}: no column for the {role}{miss}; {columns}; state it with --columns {role}=NAME"
            )
    return found


Finder = Callable[[Row], Path | str]
"""Returns the audio file of a row, or the reason why there is none."""


def table_source(
    path: Path, audio_dir: Path | None, stated: Mapping[str, str], usual: Mapping[str, str] = MappingProxyType({})
) -> SourceList:
    """Read any table with a column of audio files and one of captions; `stated` and `usual` as in `columns_of`."""
    table = open_table(path)
    columns = columns_of(table, stated, ("audio", "caption"), usual)
    root = audio_dir or path.parent
    return _read(table, columns, lambda row: file_named(root, row.text(columns["audio"])))


def song_describer_source(
    path: Path, audio_dir: Path | None, tags: Path | None, valid_subset: bool, stated: Mapping[str, str]
) -> SourceList:
    """Read song_describer.csv; `34/1004034.mp3` is found as `audio/34/1004034.2min.mp3` too."""
    table = open_table(path)
    usual = {"id": "track_id", "caption": "caption", "audio": "path", "artist": "artist_id"}
    columns = columns_of(table, stated, ("audio", "caption", "id"), usual)
    root = audio_dir or path.parent
    tsv = tags or _beside(path, "song_describer.mtg-jamendo.tsv")
    licences = _beside(path, "audio_licenses.txt")
    found = _read(
        table,
        columns,
        lambda row: _two_minutes(root, row.text(columns["audio"])),
        tags=jamendo_tags(tsv) if tsv else {},
        licences=track_licences(licences) if licences else {},
        wanted=lambda row: not valid_subset or row.text("is_valid_subset").lower() == "true",
    )
    found.notes.append(EVALUATION_ONLY)
    return found


def musiccaps_source(path: Path, audio_dir: Path | None, stated: Mapping[str, str]) -> SourceList:
    """Read a MusicCaps-style csv whose clips lie in a folder, named by their YouTube id."""
    table = open_table(path)
    columns = columns_of(table, {"id": "ytid", "tags": "aspect_list"} | dict(stated), needed=("id", "caption"))
    root = audio_dir or path.parent
    files = find_files(root, AUDIO_SUFFIXES)
    clips = {_youtube_id(file.stem): file for file in files.usable}

    def find(row: Row) -> Path | str:
        return clips.get(row.text(columns["id"])) or f"no clip named {row.text(columns['id'])} under {root.name}"

    found = _read(table, columns, find)
    found.skipped += files.unusable
    used = {track.audio for track in found.tracks}
    unused = [path.name for path in files.usable if path not in used]
    if unused:
        found.notes.append(f"{len(unused)} clips under {printable(root.name)} are of no row used: {listed(unused)}")
    return found


def jamendo_tags(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the tags of every track in an MTG-Jamendo tsv: tab-separated from the sixth column on."""
    tags: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
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
    found = SourceList()
    for row in filter(wanted, table.rows(found.skipped)):
        audio = find(row)
        if isinstance(audio, str):
            found.skipped.append(Skipped(what=row.where, why=audio))
            continue
        identifier = row.text(columns.get("id")) or row.text(columns.get("audio"))
        track = described(identifier, audio, {role: texts_in(row.cells.get(name)) for role, name in columns.items()})
        all_tags = track.tags + tags.get(identifier.lstrip("0"), ())
        licence = track.licence or licences.get(identifier, "")
        found.add(replace(track, tags=all_tags, licence=licence), row.where)
    return found


def _two_minutes(root: Path, name: str) -> Path | str:
    """Return the first that exists of the names under which the Song Describer audio may lie."""
    first = file_named(root, name)
    if isinstance(first, Path) or not name:
        return first
    stem, dot, suffix = name.rpartition(".")
    short = f"{stem}.2min{dot}{suffix}"
    found = [file_named(root, each) for each in (f"audio/{short}", short, f"audio/{name}")]
    return next((path for path in found if isinstance(path, Path)), found[1])


def _beside(path: Path, name: str) -> Path | None:
    other = path.with_name(name)
    return other if other.is_file() else None


def _youtube_id(stem: str) -> str:
    """Return the id in names such as `-0Gj8-vB1q4`, `[-0Gj8-vB1q4]-[30-40]` and `-0Gj8-vB1q4_30_40`."""
    bracketed = re.match(r"\[([\w-]{11})\]", stem)
    return bracketed[1] if bracketed else stem[:11]

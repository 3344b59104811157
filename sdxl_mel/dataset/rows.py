"""Rows of a CSV, TSV, JSONL or JSON table, read one by one; a bad row is skipped with its line and the reason."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.names import near_miss

DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = {*DELIMITERS, ".jsonl", ".json"}
MAX_CELL_CHARACTERS = 1 << 20

ROLES: dict[str, tuple[str, ...]] = {
    "audio": (
        "audio",
        "path",
        "file",
        "file_name",
        "filename",
        "audio_path",
        "audio_file",
        "filepath",
        "location",
        "wav",
    ),
    "caption": ("caption", "captions", "text", "texts", "prompt", "description", "main_caption", "txt"),
    "id": ("id", "track_id", "track", "ytid", "name", "song_id"),
    "tags": ("tags", "aspect_list", "tag", "genres", "keywords"),
    "artist": ("artist", "artist_id", "artist_name", "author", "composer", "performer"),
    "licence": ("licence", "license"),
    "split": ("split", "subset", "set"),
    "instruments": ("instruments",),
}
"""What a column can be for, and the names by which it is known without `--columns`."""


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


def _delimited(path: Path, columns: tuple[str, ...], skipped: list[Skipped]) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=DELIMITERS[path.suffix], strict=False)
        next(reader)
        while True:
            line = reader.line_num + 1
            try:
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

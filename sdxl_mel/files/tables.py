"""Text that people write: lines, CSV and its relatives, JSON and JSON lines, in UTF-8 or UTF-16.

What ends a line is what the format says: in text and tables \\n, \\r\\n or \\r outside quotes, in JSON lines \\n alone;
never one of the other characters that Unicode calls line ends, which are part of a text.
"""

import ast
import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError, printable
from sdxl_mel.files.header import parse_json

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
"""By extension: what may stand between two cells; the first where a header does not tell."""
TABLE_SUFFIXES = frozenset({*DELIMITERS, ".jsonl", ".json"})
MAX_CELL_CHARACTERS = 1 << 20
_BOMS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_SEPARATOR_LINE = re.compile(r"sep=(.)[\r\n]+")


@dataclass(frozen=True)
class Row:
    """One row: where it stands, and its cells by column name, missing ones left out."""

    where: str
    cells: Mapping[str, Any]

    def text(self, column: str | None) -> str:
        """Return a cell as text without space around it, "" where there is none."""
        return str(self.cells.get(column or "", "")).strip()


@dataclass(frozen=True)
class Table:
    """A table file and its column names."""

    path: Path
    columns: tuple[str, ...]

    def rows(self, skipped: list[Skipped]) -> Iterator[Row]:
        """Yield the rows; append to `skipped` those that cannot be read. Raises FormatError for an unclosed quote."""
        if self.path.suffix.lower() in DELIMITERS:
            yield from _delimited(self.path, self.columns, skipped)
        else:
            yield from _json_rows(self.path, skipped)


def open_table(path: Path) -> Table:
    """Read the column names of a table. Raises InputError or FormatError for what is none."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        known = ", ".join(sorted(TABLE_SUFFIXES))
        raise InputError(f"{path}: expected a table: {known}; export a spreadsheet as CSV, unpack an archive")
    if suffix in DELIMITERS:
        text, delimiter, _ = _delimited_text(path)
        columns = _header(text, delimiter)
        named = [name for name in columns if name]
        if not named:
            found = "a quote that is not closed, or a cell too long" if text.strip() else "empty"
            raise FormatError(f"{path}, line 1: {found}; its first line must name the columns")
        doubled = next((name for name in named if named.count(name) > 1), None)
        if doubled is not None:
            raise FormatError(f"{path}: two columns are named {doubled!r}; rename one")
        return Table(path, columns)
    bad: list[Skipped] = []
    names = dict.fromkeys(name for row in _json_rows(path, bad) for name in row.cells)
    if not names:
        first = f" ({bad[0].what}: {bad[0].why})" if bad else ""
        raise FormatError(f"{path}: holds no row that is a JSON object{first}")
    return Table(path, tuple(names))


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises InputError for a file that cannot be read, FormatError that names the first line in another encoding.
    """
    text = _decoded(path)
    bad = _BAD_BYTE.search(text)
    if bad:
        raise FormatError(f"{path}, line {1 + text.count(chr(10), 0, bad.start())}: not UTF-8 text; save it as UTF-8")
    return text


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text without their ends and without space around them, numbered from 1; no blank ones."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            yield number, line.strip()


def is_missing(value: object) -> bool:
    """Say whether a cell holds nothing: no value, or a number that is none. The word "nan" is a text."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def texts_in(value: object) -> tuple[str, ...]:
    """Return the texts of a cell: a list, a list written as text ("['a', 'b']"), or one text; a number is one too.

    What is neither, such as an object or true, holds no text.

    >>> texts_in("['slow', 'piano']")
    ('slow', 'piano')
    """
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        value = _list_in(value.strip())
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(
        str(item)
        for item in values
        if isinstance(item, str | int | float) and not isinstance(item, bool) and not is_missing(item)
    )


def _list_in(text: str) -> object:
    """Return the list written as JSON or as Python, or the text itself."""
    for read in (parse_json, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _decoded(path: Path) -> str:
    """Return the text of a file; bytes that are not UTF-8 are surrogates."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in _BOMS.items() if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:2]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    if encoding is None:
        return content.decode("utf-8-sig", "surrogateescape")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text, nor whole {encoding.upper()}; save it as UTF-8") from error


def _delimited_text(path: Path) -> tuple[str, str, int]:
    """Return the text of a table with a header, its delimiter, and how many lines stand before its header."""
    text = _decoded(path)
    stated = _SEPARATOR_LINE.match(text)
    if stated:
        return text[stated.end() :], stated[1], 1
    possible = DELIMITERS[path.suffix.lower()]
    best = max(possible, key=lambda mark: len(_header(text, mark)))
    return text, best if len(_header(text, best)) > 1 else possible[0], 0


def _header(text: str, delimiter: str) -> tuple[str, ...]:
    """Return the column names under a delimiter, none where the first line cannot be read with it."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return tuple(printable(name.strip()) for name in next(rows, ()))
    except csv.Error:
        return ()


def _delimited(path: Path, columns: tuple[str, ...], skipped: list[Skipped]) -> Iterator[Row]:
    text, delimiter, before = _delimited_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    next(reader)
    while True:
        first = reader.line_num + 1
        where = f"{path.name}, line {first + before}"
        try:
            with _long_cells():
                cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num > first or "end of data" in str(error):
                raise FormatError(
                    f"{path}, line {first + before}: a quote that is opened here is not closed where its cell ends; "
                    'close it, or write a quote inside a cell as ""'
                ) from error
            skipped.append(Skipped(what=where, why=f'not a row ({error}); write a quote inside a cell as ""'))
            continue
        if cells is None:
            return
        problem = _problem(cells, columns)
        if problem:
            skipped.append(Skipped(what=where, why=problem))
        elif cells:
            yield Row(where, dict(zip(columns, cells)))


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module, whose limit is that of the whole program, read cells of MAX_CELL_CHARACTERS."""
    before = csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _problem(cells: list[str], columns: tuple[str, ...]) -> str:
    if any(_BAD_BYTE.search(cell) for cell in cells):
        return "not UTF-8; save the table as UTF-8"
    if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
        return f"{len(cells)} cells under {len(columns)} columns; put text with commas in quotes"
    return ""


def _json_rows(path: Path, skipped: list[Skipped]) -> Iterator[Row]:
    if path.suffix.lower() == ".json":
        yield from _json_list(path, skipped)
        return
    for number, line in enumerate(io.StringIO(_decoded(path), newline="\n"), start=1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            content = parse_json(line)
        except ValueError as error:
            skipped.append(Skipped(what=where, why=f"not JSON in UTF-8 ({error})"))
            continue
        yield from _json_row(where, content, skipped)


def _json_list(path: Path, skipped: list[Skipped]) -> Iterator[Row]:
    """Yield the rows of a list of objects, also where it stands inside an object, as in manifest.json."""
    try:
        content = parse_json(_decoded(path))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON in UTF-8 ({error})") from error
    if isinstance(content, dict):
        lists = [each for each in content.values() if isinstance(each, list) and any(isinstance(x, dict) for x in each)]
        content = lists[0] if len(lists) == 1 else content
    for number, each in enumerate(content if isinstance(content, list) else [content], start=1):
        yield from _json_row(f"{path.name}, row {number}", each, skipped)


def _json_row(where: str, content: object, skipped: list[Skipped]) -> Iterator[Row]:
    if isinstance(content, dict):
        yield Row(where, {name: value for name, value in content.items() if not is_missing(value)})
    else:
        skipped.append(Skipped(what=where, why="not a JSON object"))

"""Files of prompts: one prompt per line (.txt), or tables with further settings of each prompt (.csv, .jsonl)."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.header import Frozen
from sdxl_mel.names import near_miss

SYNONYMS = {"caption": "prompt", "text": "prompt"}
KINDS = ".txt, .csv, .jsonl"


class PromptLine(Frozen):
    """One prompt of a file; what is None is taken from the command's settings."""

    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    seed: int | None = None
    num: int | None = Field(None, ge=1)


def read_prompts(path: Path) -> list[PromptLine]:
    """Return the prompts of a file; blank lines, and lines of a .txt that start with #, are left out.

    Tables have the columns prompt (or caption, text), negative_prompt, seed and num, of which only the first is needed.
    Raises InputError for a file that is missing, empty or of another kind, FormatError that names a bad line.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot read these prompts ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    match path.suffix.lower():
        case ".txt":
            rows: Iterator[tuple[int, Mapping[str, object]]] = _text_rows(content)
        case ".csv":
            rows = _csv_rows(content)
        case ".jsonl":
            rows = _json_rows(content, path)
        case other:
            raise InputError(f"{path}: prompts of kind {other or 'unknown'}; give one of {KINDS}")
    prompts = [_line(row, f"{path}, line {number}") for number, row in rows]
    if not prompts:
        raise InputError(f"{path}: holds no prompt; write one a line")
    return prompts


def _text_rows(content: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, {"prompt": line.strip()}


def _csv_rows(content: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(content.splitlines())
    for row in reader:
        # csv puts cells beyond the header under None: an unquoted comma in a prompt.
        extra = {"?": " ".join(row.pop(None))} if None in row else {}
        filled = {name.strip(): value.strip() for name, value in row.items() if value and value.strip()}
        if filled or extra:
            yield reader.line_num, filled | extra


def _json_rows(content: str, path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FormatError(f"{path}, line {number}: not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise FormatError(f'{path}, line {number}: not an object such as {{"prompt": "slow piano"}}')
        yield number, row


def _line(row: Mapping[str, object], where: str) -> PromptLine:
    named = {SYNONYMS.get(name, name): value for name, value in row.items()}
    try:
        return PromptLine.model_validate(named)
    except ValidationError as error:
        # A misspelt column is also a missing one; the error names the misspelling.
        first = max(error.errors(), key=lambda details: details["type"] == "extra_forbidden")
        name = str(first["loc"][0])
        if name == "?":
            raise FormatError(
                f"{where}: more cells than the header names; put a prompt with commas in quotes"
            ) from error
        if first["type"] == "extra_forbidden":
            hint = near_miss(name, PromptLine.model_fields)
            raise FormatError(
                f"{where}: unknown column {name!r}{hint}; known: {', '.join(PromptLine.model_fields)}"
            ) from error
        raise FormatError(f"{where}: {name}: {first['msg'].lower()}") from error

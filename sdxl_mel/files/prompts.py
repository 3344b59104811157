"""Files of prompts: one prompt per line (.txt), or tables with further settings of each prompt (.csv, .jsonl, ...)."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.header import Frozen
from sdxl_mel.files.tables import TABLE_SUFFIXES, open_table, read_text, text_lines
from sdxl_mel.names import near_miss

SYNONYMS = {"caption": "prompt", "text": "prompt"}
KINDS = (".txt", *sorted(TABLE_SUFFIXES))


class PromptLine(Frozen):
    """One prompt of a file; what is None is taken from the command's settings."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    num: int | None = Field(None, ge=1)


def read_prompts(path: Path) -> list[PromptLine]:
    """Return the prompts of a file; blank lines, and lines of a .txt that start with #, are left out.

    Tables have the columns prompt (or caption, text), negative_prompt, seed and num, of which only the first is needed.
    Raises InputError for a file that is missing, empty or of another kind, FormatError that names a bad line.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise InputError(f"{path}: prompts of kind {suffix or 'unknown'}; give one of {', '.join(KINDS)}")
    if suffix == ".txt":
        lines = [(number, line) for number, line in text_lines(read_text(path)) if not line.startswith("#")]
        prompts = [_line({"prompt": line}, f"{path}, line {number}") for number, line in lines]
    else:
        bad: list[Skipped] = []
        rows = [(path.with_name(row.where), _filled(row.cells)) for row in open_table(path).rows(bad)]
        if bad:
            raise FormatError(f"{path.with_name(bad[0].what)}: {bad[0].why}")
        prompts = [_line(cells, str(where)) for where, cells in rows if cells]
    if not prompts:
        raise InputError(f"{path}: holds no prompt; write one a line")
    return prompts


def _filled(cells: Mapping[str, object]) -> dict[str, object]:
    """Return the cells of a row in which something stands, without space around it."""
    stripped = {name: value.strip() if isinstance(value, str) else value for name, value in cells.items()}
    return {name: value for name, value in stripped.items() if value != ""}


def _line(row: Mapping[str, object], where: str) -> PromptLine:
    named = {SYNONYMS.get(name, name): value for name, value in row.items()}
    try:
        return PromptLine.model_validate(named)
    except ValidationError as error:
        # A misspelt column is also a missing one; the error names the misspelling.
        first = max(error.errors(), key=lambda details: details["type"] == "extra_forbidden")
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            hint = near_miss(name, PromptLine.model_fields)
            raise FormatError(
                f"{where}: unknown column {name!r}{hint}; known: {', '.join(PromptLine.model_fields)}"
            ) from error
        raise FormatError(f"{where}: {name}: {first['msg'].lower()}") from error

"""JSON files that say their own version: dataset.json, cache.json, run.json, metrics.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdxl_mel.errors import FormatError, InputError

Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """What a JSON file of ours holds: values that do not change, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def parse_json(text: str | bytes) -> Any:
    """Return JSON content. Raises ValueError, also for what is nested too deep and for half a UTF-16 character."""
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return content


def read_versioned(
    path: Path,
    model: type[Model],
    *,
    newest: int,
    what: str,
    missing: str,
    again: str,
    key: str = "format",
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content,
) -> Model:
    """Read a versioned JSON file as `model`, its older versions made new by `upgrade`.

    `key` holds the version, at most `newest`. Messages call the file's content `what` ("cache"), say what is `missing`
    where there is no file ("no finished cache; make one with sdxl-mel cache") and what to do `again` where it is
    damaged. Raises InputError where there is no file, FormatError where it is damaged, of another kind, or newer.
    """
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        thing, _, remedy = missing.partition("; ")
        raise InputError(f"{path.parent}: {thing} ({path.name}: {error.strerror}); {remedy}") from error
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error}); {again}") from error
    version = content.get(key) if isinstance(content, dict) else None
    if isinstance(version, int) and version > newest:
        raise FormatError(f"{path}: {what} {key} {version}, this toolkit reads {newest}; update sdxl-mel")
    try:
        return model.model_validate(upgrade(content) if isinstance(content, dict) else content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "header"
        raise FormatError(f"{path}: {place}: {first['msg']}; {again}") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not a whole {what} of {key} {version} ({error}); {again}") from error

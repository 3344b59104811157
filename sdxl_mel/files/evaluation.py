"""metrics.json: the result of an evaluation, with every number's interval, method and meaning beside it."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.atomic import write_json
from sdxl_mel.record import Record

SCHEMA = 1
FILE_NAME = "metrics.json"
DIGITS = 9
"""Significant digits kept: what remains does not depend on the order in which threads add."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Frozen):
    """One number: 95 % bounds `low` and `high`, standard error `se`, on `n` `unit`s, how it was made, what it means.

    `band` is a calibrated word for it and `band_span` the words its interval touches; `no_band` is why there is none.
    `by_prompt` holds the values that a comparison pairs. `details` is more about the same number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    se: float | None = None
    n: int
    unit: str = "clips"
    better: Literal["higher", "lower"] | None = None
    embedder: str | None = None
    method: str
    meaning: str
    band: str | None = None
    band_span: tuple[str, ...] = ()
    no_band: str | None = None
    by_prompt: dict[str, float] = {}
    details: dict[str, JsonValue] = {}


class Absent(_Frozen):
    """A metric that could not be computed, and what would make it possible."""

    metric: str
    why: str


class EmbedderInfo(_Frozen):
    """Which model made the vectors: SHA-256 of its weights, its rate in Hz and how clips are cut for it."""

    weights: str
    rate: int
    windows: str
    family: str | None = None
    dimensions: int


class SetInfo(_Frozen):
    """One set of clips: how many were used, how many were left out, and the SHA-256 of each used file."""

    used: int
    left_out: int
    seconds: float
    files: dict[str, str]


class Evaluation(_Frozen):
    """Everything `sdxl-mel evaluate` found out."""

    schema_version: int = SCHEMA
    record: Record
    versions: dict[str, str]
    metrics: dict[str, Metric]
    absent: tuple[Absent, ...] = ()
    warnings: tuple[str, ...] = ()
    embedders: dict[str, EmbedderInfo]
    sets: dict[str, SetInfo]
    left_out: tuple[Skipped, ...] = ()
    clips: tuple[dict[str, JsonValue], ...]


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write metrics.json; the same evaluation makes the same bytes."""
    write_json(path, _rounded(evaluation.model_dump(mode="json")))


def read_evaluation(path: Path) -> Evaluation:
    """Read a metrics.json, or the one in a folder. Raises InputError when there is none, FormatError when damaged."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{file}: cannot read this evaluation ({error.strerror}); run sdxl-mel evaluate first"
        ) from error
    except ValueError as error:
        raise FormatError(f"{file}: not a metrics.json ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise FormatError(f"{file}: schema version {version!r}, this toolkit reads {SCHEMA}; evaluate again")
    try:
        return Evaluation.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FormatError(f"{file}: not a metrics.json: {place}: {first['msg']}") from error


def failed_thresholds(evaluation: Evaluation, least: dict[str, float], most: dict[str, float]) -> list[str]:
    """Return a line for each threshold that is not met; an absent metric does not meet any."""
    failures = []
    for thresholds, word, sign in ((least, "under", 1.0), (most, "over", -1.0)):
        for name, bound in thresholds.items():
            metric = evaluation.metrics.get(name)
            if metric is None:
                failures.append(f"{name} is absent, so nothing shows that it is not {word} {bound:g}")
            elif sign * metric.value < sign * bound:
                failures.append(f"{name} = {metric.value:.4g} is {word} {bound:g}")
    return failures


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value

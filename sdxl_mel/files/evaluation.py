"""metrics.json: the result of an evaluation, with every number's interval, method and meaning beside it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from sdxl_mel.config import Skipped
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.header import Frozen, read_versioned
from sdxl_mel.record import Record

SCHEMA = 2
FILE_NAME = "metrics.json"
FIELDS_OF_1 = {"band": "grade", "band_span": "grade_span", "no_band": "no_grade"}
NAMES_OF_1 = {"tagbridge": "tag-score"} | {
    f"tagbridge_{name}": f"tag_{name}" for name in ("mean", "gap", "r1", "r5", "mrr", "score")
}
"""Names of schema 1 that schema 2 has other words for."""
DIGITS = 9
"""Significant digits kept: what remains does not depend on the order in which threads add."""


class _Finite(Frozen):
    model_config = ConfigDict(allow_inf_nan=False)


class Floor(_Finite):
    """What a distance reads between two parts of the reference, of `clips` and of `against` clips."""

    value: float
    clips: int
    against: int


class SizeCurve(_Finite):
    """A distance at several numbers of clips, and the line through it over 1/N: its value at 0 and its R^2.

    `trust_limit` says whether there are at least as many windows as dimensions.
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    limit: float | None
    r_squared: float | None
    trust_limit: bool


class Details(BaseModel):
    """More about a metric. What other modules read is named here; all else is for people, whatever its name.

    `p` is a p-value, `chance` the value by chance, `floor` that of two parts of the reference, `curve` that at fewer
    clips, `shuffled` that with the prompts of other clips. `collapsed` are prompts whose clips are nearly the same.
    `by_instrument` has how often each was found and asked for.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)
    __pydantic_extra__: dict[str, JsonValue]

    p: float | None = None
    chance: float | None = None
    floor: Floor | None = None
    curve: SizeCurve | None = None
    shuffled: float | None = None
    collapsed: tuple[str, ...] = ()
    by_instrument: dict[str, tuple[int, int]] = {}

    @model_serializer(mode="wrap")
    def _only_what_was_given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        return {name: value for name, value in serialise(self).items() if name in self.model_fields_set}


class Metric(_Finite):
    """One number: 95 % bounds `low` and `high`, standard error `se`, on `n` `unit`s, how it was made, what it means.

    `grade` is a calibrated word for it and `grade_span` the words its interval touches; `no_grade` is why there is
    none. `by_prompt` holds the values that a comparison pairs.
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
    grade: str | None = None
    grade_span: tuple[str, ...] = ()
    no_grade: str | None = None
    by_prompt: dict[str, float] = {}
    details: Details = Details()


class Absent(_Finite):
    """A metric that could not be computed, and what would make it possible."""

    metric: str
    why: str


class EmbedderInfo(_Finite):
    """Which model made the vectors: SHA-256 of its weights, its rate in Hz and how clips are cut for it."""

    weights: str
    rate: int
    windows: str
    family: str | None = None
    dimensions: int


class SetInfo(_Finite):
    """One set of clips: how many were used, how many were left out, and the SHA-256 of each used file."""

    used: int
    left_out: int
    seconds: float
    files: dict[str, str]


class Evaluation(_Finite):
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

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = {metric.embedder for metric in self.metrics.values() if metric.embedder is not None}
        if lacking := sorted(named - self.embedders.keys()):
            raise ValueError(f"its metrics name the embedder {lacking[0]}, which is not among its embedders")
        return self


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write metrics.json; the same evaluation makes the same bytes."""
    write_json(path, _rounded(evaluation.model_dump(mode="json")))


def read_evaluation(path: Path) -> Evaluation:
    """Read a metrics.json, or the one in a folder. Raises InputError when there is none, FormatError when damaged."""
    return read_versioned(
        path / FILE_NAME if path.is_dir() else path,
        Evaluation,
        newest=SCHEMA,
        what="evaluation",
        missing="no evaluation; make one with sdxl-mel evaluate",
        again="evaluate again",
        key="schema_version",
        upgrade=_upgraded,
    )


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


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a metrics.json with the names of schema 2: grades were bands, tag-score was tagbridge."""
    if content.get("schema_version") != 1:
        return content
    metrics = {
        name: _renamed(metric, FIELDS_OF_1) | {"embedder": NAMES_OF_1.get(metric["embedder"], metric["embedder"])}
        for name, metric in _renamed(content["metrics"], NAMES_OF_1).items()
    }
    return content | {
        "schema_version": 2,
        "metrics": metrics,
        "absent": [each | {"metric": NAMES_OF_1.get(each["metric"], each["metric"])} for each in content["absent"]],
        "embedders": _renamed(content["embedders"], NAMES_OF_1),
        "clips": [_renamed(clip, NAMES_OF_1) for clip in content["clips"]],
    }


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}

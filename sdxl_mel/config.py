"""Settings of a stage: pydantic models filled from a TOML file and from flags, and the report a stage returns."""

import ast
import inspect
import json
import re
import sys
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, ValidationError

from sdxl_mel.errors import FormatError, InputError, in_one_line
from sdxl_mel.names import near_miss, settings_of

Model = TypeVar("Model", bound=BaseModel)


ESCAPING = re.compile(r"Unescaped|hex value|scalar value")
"""What tomllib says of a backslash that begins no escape, as in most Windows paths in double quotes."""
SPOILT = re.compile(r"[\b\f\r\t]|^[A-Za-z]:.*\n|^\S+\n\S+$")
"""What becomes of a Windows path that is TOML by chance: `runs\\tape` has a tab in it."""


class Unrecorded(Enum):
    """The mark of a setting that does not decide the result: a place, a device, how much is done at once."""

    MARK = "unrecorded"


UNRECORDED = Unrecorded.MARK
"""Written beside the setting, `Annotated[Path, UNRECORDED]`; what a record holds is read from the settings."""


@dataclass(frozen=True)
class Before:
    """The mark of a setting that stands before an inherited one: in help, in files and in records."""

    name: str


class Settings(BaseModel):
    """A group of settings: frozen, and closed to unknown keys. A field's docstring is its help text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        # Built when the first is made: a command line's help needs the validators of none.
        defer_build=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Describe settings by their docstrings and put them in the order of their marks; pydantic has inherited first.

        pydantic's own `use_attribute_docstrings` reads a file anew for every class, token by token.
        """
        super().__pydantic_init_subclass__(**options)
        for name, text in _docstrings_in(cls.__module__).get(cls.__qualname__, {}).items():
            if name in cls.model_fields and cls.model_fields[name].description is None:
                cls.model_fields[name].description = text
        order = list(cls.model_fields)
        for name, field in cls.model_fields.items():
            for mark in field.metadata:
                if isinstance(mark, Before):
                    order.remove(name)
                    order.insert(order.index(mark.name), name)
        if order != list(cls.model_fields):
            cls.__pydantic_fields__ = {name: cls.model_fields[name] for name in order}

    def recorded(self) -> dict[str, JsonValue]:
        """Return the settings that decide the result, for its record: all but those marked UNRECORDED."""
        values: dict[str, JsonValue] = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if UNRECORDED in field.metadata:
                del values[name]
            elif isinstance(value, Settings):
                values[name] = value.recorded()
        return values


@cache
def _docstrings_in(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of attributes in a module's source, by the qualified name of their class."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError):  # What was typed or made by `exec` has no source.
        return {}
    return dict(_docstrings_of(tree, ""))


def _docstrings_of(scope: ast.AST, within: str) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef):
            texts = {
                attribute.target.id: inspect.cleandoc(text.value.value)
                for attribute, text in pairwise(node.body)
                if isinstance(attribute, ast.AnnAssign)
                and isinstance(attribute.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
            yield f"{within}{node.name}", texts
            yield from _docstrings_of(node, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield from _docstrings_of(node, f"{within}{node.name}.<locals>.")


class StageConfig(Settings):
    """All settings of one stage."""


class Skipped(BaseModel):
    """An input that was left out, and why; what cannot be written in one line is escaped."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    what: Annotated[str, BeforeValidator(in_one_line)]
    why: Annotated[str, BeforeValidator(in_one_line)]


class StageReport(BaseModel):
    """What a stage did; the command line prints `summary()` and lists what was skipped."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    skipped: tuple[Skipped, ...] = ()
    failures: tuple[str, ...] = ()
    """Thresholds that are not met."""

    def summary(self) -> str:
        """Return the lines a person wants to see at the end."""
        return "done"

    @property
    def exit_code(self) -> int:
        """Return 0, 1 when a threshold is failed, or 3 when the stage finished but left inputs out."""
        return 1 if self.failures else 3 if self.skipped else 0


def read_toml(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the tables of a TOML file, on top of those of the file that its `include` names (relative to it).

    Raises InputError for a missing file or files that include each other (`within` are those that led here), and
    FormatError for a broken one.
    """
    if path.resolve() in within:
        raise InputError(f"{path}: includes itself through {' and '.join(each.name for each in within)}")
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise FormatError(f"{path}: not a TOML file: nested too deep") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read this config ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a TOML file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        line = text.rstrip().split("\n")[int(place[1]) - 1 if place else -1].strip()
        spoilt = ESCAPING.search(str(error)) or line.endswith('\\"')
        raise FormatError(f"{path}: {_unescaped(line) if spoilt else f'not a TOML file: {error}'}") from error
    for value in _texts(tables):
        if SPOILT.search(value):
            raise FormatError(f"{path}: {_unescaped(json.dumps(value))}")
    included = tables.pop("include", None)
    if included is None:
        return tables
    if not isinstance(included, str):
        raise InputError(f"{path}: include: found {included!r}; expected the name of one TOML file")
    return merged(read_toml(path.parent / included, (*within, path.resolve())), tables)


def _unescaped(found: str) -> str:
    return (
        f"{found}: a backslash in double quotes stands for another character; write a Windows path in single quotes, "
        "'C:\\music', or with / in place of \\"
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested tables and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings merged key by key; `over` wins."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def validated(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build `model` from `values`; raises InputError in one line that names each bad setting and what was meant."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explained(model, details) for details in error.errors())
        raise InputError(f"{where}: {problems}") from error


def _explained(model: type[BaseModel], details: Any) -> str:
    name = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"unknown setting {name!r}{near_miss(name, dict(settings_of(model)))}"
        case "missing":
            return f"{name} is needed"
        case "literal_error":
            choices = re.findall("'([^']*)'", details["ctx"]["expected"])
            meant = near_miss(str(details["input"]), choices)
            return f"{name}: found {details['input']!r}{meant}; expected {details['ctx']['expected']}"
        case "value_error":
            reason = str(details["ctx"]["error"])
            return f"{name}: {reason}" if name else reason
        case _:
            return f"{name}: found {details['input']!r}; {details['msg'][0].lower()}{details['msg'][1:]}"

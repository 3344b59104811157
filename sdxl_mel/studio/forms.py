"""The commands that the studio offers, their settings as a form is made from them, and the settings that a form gives.

The settings models of the commands are the only source: a page and a command line cannot differ.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from sdxl_mel.arguments import Show, format_arguments, value_kind
from sdxl_mel.commands import COMMANDS
from sdxl_mel.config import StageConfig, validated
from sdxl_mel.errors import InputError
from sdxl_mel.names import group_of, near_miss, settings_of

Kind = Literal[
    "base", "lora", "dataset", "cache", "run", "evaluation", "comparison", "results", "sound", "picture", "table",
    "config", "folder",
]  # fmt: skip
"""Kinds of artefacts."""


@dataclass(frozen=True)
class Stage:
    """A command that the studio offers: where the folders of its results lie below the root, and what draws them.

    `file` is the result in the folder, where the command writes a file and not a folder; `refused` are settings that
    its form does not have.
    """

    folder: str
    runs: Literal["worker", "process"] = "process"
    file: str = ""
    refused: frozenset[str] = frozenset()


STAGES = {
    "generate": Stage("studio/results", "worker"),
    "edit": Stage("studio/results", "worker", "edited.wav"),
    "vary": Stage("studio/results", "worker"),
    "prepare": Stage("data"),
    "cache": Stage("data"),
    "vae-audit": Stage("scores"),
    "train": Stage("runs"),
    "fuse": Stage("models"),
    "evaluate": Stage("scores", refused=frozenset({"cache"})),
    "compare": Stage("scores"),
}
MODELS: dict[str, tuple[Kind, ...]] = {
    "base": ("base",),
    "lora": ("lora",),
    "vae": ("base",),
    "against": ("base",),
    "clap": ("folder",),
}
"""The settings that name models, which are files, folders or on the hub, and the kinds of artefacts that fit."""
FILES: dict[str, tuple[Kind, ...]] = {
    "base_config": ("folder",),
    "configs": ("folder",),
    "music": ("folder", "table"),
    "audio_dir": ("folder",),
    "tags": ("table",),
    "prompts": ("table",),
    "init": ("lora",),
    "input": ("sound", "picture"),
    "source": ("sound", "picture"),
    "dataset": ("dataset",),
    "cache": ("cache",),
    "laion_clap": ("folder",),
    "generated": ("results", "folder", "dataset"),
    "reference": ("dataset", "folder", "results"),
    "training": ("dataset", "folder"),
    "against": ("evaluation",),
    "evaluations": ("evaluation",),
    "runs": ("evaluation",),
}
"""The settings that name files or folders, by the last part of their names, and the kinds of artefacts that fit."""
OUT = "out"
REFUSED = {"task", "resume", "resume_with_changes", "push_to_hub", "trackers", "overrides"}
"""Settings that a form does not have: it has those of the default action alone, the studio decides on resuming, edits
lie beside their dataset, and nothing leaves this machine."""


def settings_model(stage: str) -> type[StageConfig]:
    """Return the settings model of a command. Raises InputError for one that the studio does not offer."""
    if stage not in STAGES:
        raise InputError(f"stage: found {stage!r}{near_miss(stage, STAGES)}; expected one of {', '.join(STAGES)}")
    actions = COMMANDS[stage].actions()
    return actions[COMMANDS[stage].default_action() or next(iter(actions))].settings


def kinds_of(name: str, field: FieldInfo) -> tuple[Kind, ...] | None:
    """Return the kinds of artefacts that a setting takes, None where it names no file."""
    kind, last = value_kind(field), name.rpartition(".")[2]
    if kind is Path:
        return FILES.get(last, ("folder",))
    return MODELS.get(name) if kind is str else None


def form(stage: str) -> dict[str, JsonValue]:
    """Return the JSON schema of a command's settings, groups in their places, with what a form needs beside it.

    `show` is "common", "advanced" or "hidden", `flag` the name on the command line, `kinds` what a file may be.
    """
    model = settings_model(stage)
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    inlined: Any = _inlined(schema, definitions)
    for name, field in settings_of(model):
        *groups, last = name.split(".")
        above = inlined
        for group in groups:
            above = above["properties"][group]
        if _refused(stage, name):
            above["properties"].pop(last, None)
            above["required"] = [each for each in above.get("required", []) if each != last]
        elif group_of(field.annotation) is None:
            shown = "advanced" if Show.ADVANCED in field.metadata or groups else "common"
            extra: dict[str, Any] = {
                "show": "hidden" if Show.HIDDEN in field.metadata else shown,
                "flag": f"--{name.rstrip('_').replace('_', '-')}",
            }
            if kinds := kinds_of(name, field):
                extra["kinds"] = list(kinds)
            above["properties"][last] |= extra
    return {"name": stage, "purpose": COMMANDS[stage].purpose, "schema": inlined}


def checked(
    stage: str, settings: Mapping[str, JsonValue], out: str, path_of: Callable[[str, str], str], **more: JsonValue
) -> StageConfig:
    """Return the settings of a command as it runs in the root, its results in the folder `out`, and what `more` states.

    `path_of` makes a path of what a form gives for a file, (name of the setting, value); it raises InputError for what
    is not below the root. Raises InputError for settings that the command would refuse.
    """
    model = settings_model(stage)
    for name in _names(settings):
        if _refused(stage, name):
            raise InputError(f"{name}: the studio decides it; leave it out")
    fields = dict(settings_of(model))

    def placed(value: JsonValue, name: str) -> JsonValue:
        if isinstance(value, Mapping) and (name == "" or name not in fields or group_of(fields[name].annotation)):
            return {key: placed(each, f"{name}.{key}" if name else key) for key, each in value.items()}
        if name not in fields or kinds_of(name, fields[name]) is None:
            return value
        if isinstance(value, list):
            return [placed(each, name) for each in value]
        return path_of(name, value) if isinstance(value, str) else value

    values: Any = placed(dict(settings), "")
    if OUT in model.model_fields:
        values |= {OUT: f"{out}/{STAGES[stage].file}" if STAGES[stage].file else out}
    return validated(model, values | more, stage)


def command_of(stage: str, config: StageConfig) -> str:
    """Return the command line that does in the root what the studio does."""
    return shlex.join(["sdxl-mel", stage, *format_arguments(config)])


def _refused(stage: str, name: str) -> bool:
    return name == OUT or name in REFUSED or name in STAGES[stage].refused


def _names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in values.items():
        names.append(prefix + key)
        if isinstance(value, Mapping):
            names += _names(value, f"{prefix}{key}.")
    return names


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with what it refers to in its place."""
    match schema:
        case {"$ref": str(reference), **beside}:
            inner = _inlined(definitions[reference.rpartition("/")[2]], definitions)
            return inner | {key: _inlined(value, definitions) for key, value in beside.items()}
        case dict():
            return {key: _inlined(value, definitions) for key, value in schema.items()}
        case list():
            return [_inlined(each, definitions) for each in schema]
        case _:
            return schema


def stated(stage: str, values: Mapping[str, JsonValue], id_of: Callable[[str], str | None]) -> dict[str, JsonValue]:
    """Return settings of a file as a form has them: what names a file by its id, left out where it has none."""
    fields = dict(settings_of(settings_model(stage)))

    def given(above: Mapping[str, JsonValue], prefix: str) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}
        for key, value in above.items():
            name = prefix + key
            if _refused(stage, name) or name not in fields:
                continue
            if isinstance(value, Mapping) and group_of(fields[name].annotation):
                found[key] = given(value, f"{name}.")
            elif kinds_of(name, fields[name]) is None:
                found[key] = value
            elif isinstance(value, str) and (identifier := id_of(value)):
                found[key] = identifier
        return found

    return given(values, "")


def described(stage: str, config: StageConfig) -> dict[str, JsonValue]:
    """Return all settings, defaults filled in, as a form shows them."""
    values: dict[str, JsonValue] = config.model_dump(mode="json")
    return {name: value for name, value in values.items() if not _refused(stage, name)}

"""Completion of commands, settings and values in a shell, made from the parsers that read the command line."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from sdxl_mel.arguments import build_parser
from sdxl_mel.config import StageConfig
from sdxl_mel.errors import InputError
from sdxl_mel.names import group_of, members_of

SHELLS = ("bash", "zsh")
SEVERAL = (list, tuple, set, frozenset)


def completion_script(
    shell: str, commands: Mapping[str, tuple[type[StageConfig], str]], everywhere: Mapping[str, str]
) -> str:
    """Return the script that a shell reads to complete `sdxl-mel`.

    `commands` are the settings of each command and what it is for, `everywhere` the switches that all of them take.
    Raises InputError for a shell without a script.
    """
    if shell not in SHELLS:
        raise InputError(f"sdxl-mel completion: found {shell!r}; expected {' or '.join(SHELLS)}")
    import shtab

    root = argparse.ArgumentParser(prog="sdxl-mel")
    choices = root.add_subparsers()
    common = argparse.ArgumentParser(add_help=False)
    for switch, purpose in everywhere.items():
        common.add_argument(switch, action="store_true", help=purpose)
    for name, (model, purpose) in commands.items():
        parser = build_parser(model, f"sdxl-mel {name}", everything=True)
        kinds = dict(_kinds(model))
        for action in parser._actions:  # argparse has no public list of them
            kind = kinds.get(action.dest, Path if action.dest == "config_file" else None)
            if get_origin(kind) is Literal:
                action.choices = get_args(kind)
            elif kind in (Path, str):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        choices.add_parser(name, help=purpose, parents=[parser, common], add_help=False)
    return str(shtab.complete(root, shell=shell))


def _kinds(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name of every setting and the type of one of its values."""
    for name, field in model.model_fields.items():
        group = group_of(field.annotation)
        if group is not None:
            yield from _kinds(group, f"{prefix}{name}.")
            continue
        kind = next(iter(members_of(field.annotation)), str)
        yield prefix + name, get_args(kind)[0] if get_origin(kind) in SEVERAL else kind

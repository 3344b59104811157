"""Completion of commands, actions, settings and values in a shell, made from the parsers that read the command line."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import shtab

from sdxl_mel.arguments import build_parser, value_kind
from sdxl_mel.commands import Command
from sdxl_mel.config import StageConfig
from sdxl_mel.errors import InputError
from sdxl_mel.names import settings_of

SHELLS = ("bash", "zsh")


def completion_script(shell: str, commands: Mapping[str, Command], common: argparse.ArgumentParser) -> str:
    """Return the script that a shell reads to complete `sdxl-mel`; `common` are the flags that all commands take.

    Raises InputError for a shell without a script.
    """
    if shell not in SHELLS:
        raise InputError(f"sdxl-mel completion: found {shell!r}; expected {' or '.join(SHELLS)}")
    root = argparse.ArgumentParser(prog="sdxl-mel")
    choices = root.add_subparsers()
    for name, command in commands.items():
        actions = command.actions()
        default = command.default_action()
        parents = [_completed(actions[default].settings), common] if default is not None else []
        if command.chosen_by():
            # One command line has the settings of every action; those that actions share are completed alike.
            parents = [*(_completed(action.settings) for each, action in actions.items() if each != default), *parents]
        parser = choices.add_parser(
            name, help=command.purpose, parents=parents, add_help=not parents, conflict_handler="resolve"
        )
        if "" in actions or command.chosen_by():
            continue
        below = parser.add_subparsers()
        for each, action in actions.items():
            below.add_parser(each, help=action.purpose, parents=[_completed(action.settings), common], add_help=False)
    return str(shtab.complete(root, shell=shell))


def _completed(model: type[StageConfig]) -> argparse.ArgumentParser:
    """Return the parser of settings with what a shell offers as their values: the choices, or files."""
    parser = build_parser(model, "", everything=True)
    kinds = {name: value_kind(field) for name, field in settings_of(model)} | {"config_file": Path}
    for argument in parser._actions:  # argparse has no public list of them
        kind = kinds.get(argument.dest)
        if get_origin(kind) is Literal:
            argument.choices = get_args(kind)
        elif kind in (Path, str):
            argument.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser

"""The table of the commands, and the settings that a command line states.

A command's module is imported when the command is called, here and nowhere else.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from sdxl_mel.arguments import Action, named_action, parse_arguments
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss


class Command(NamedTuple):
    """One row of the table: the module of the command, and what the command is for.

    The module holds `run(config)` and either `Config` and `EXAMPLES`, or `ACTIONS` and, where one of them is meant by
    a command line that names none, `DEFAULT_ACTION`. An action is the first word of a command line, or the value of
    the setting `CHOSEN_BY`.
    """

    module: str
    purpose: str

    def load(self) -> ModuleType:
        """Import the module."""
        return import_module(self.module)

    def actions(self) -> Mapping[str, Action]:
        """Return what the command does by the name of the action; the name is empty where there is but one."""
        module = self.load()
        return getattr(module, "ACTIONS", None) or {"": Action(module.Config, module.EXAMPLES)}

    def default_action(self) -> str | None:
        """Return the action of a command line that names none, None where one must be named."""
        default: str | None = getattr(self.load(), "DEFAULT_ACTION", None if len(self.actions()) > 1 else "")
        return default

    def chosen_by(self) -> str | None:
        """Return the setting that names the action, None where the first word of the command line does."""
        name: str | None = getattr(self.load(), "CHOSEN_BY", None)
        return name

    def words_for(self, action: str) -> list[str]:
        """Return the words of a command line that choose an action."""
        if action in ("", self.default_action()):
            return []
        setting = self.chosen_by()
        return [f"--{setting}", action] if setting else [action]


COMMANDS = {
    "encode": Command("sdxl_mel.stages.encode", "sound -> spectrogram picture"),
    "invert": Command("sdxl_mel.stages.invert", "spectrogram picture -> sound"),
    "roundtrip": Command("sdxl_mel.stages.roundtrip", "what each step of the codec costs, for your own sound"),
    "inspect": Command("sdxl_mel.stages.inspect", "what a file of ours is, and what made it"),
    "prepare": Command("sdxl_mel.stages.prepare", "a folder of music and captions -> training set"),
    "cache": Command("sdxl_mel.stages.cache", "training set -> latents and text embeddings"),
    "vae-audit": Command("sdxl_mel.stages.vae_audit", "what the VAE costs, before anyone trains"),
    "trajectories": Command("sdxl_mel.stages.trajectories", "a teacher's ways from noise, for train --task steps"),
    "train": Command("sdxl_mel.stages.train", "cache -> LoRA (accelerate launch train_lora.py)"),
    "lora": Command("sdxl_mel.stages.lora", "convert, describe, compare, resize, merge and extract LoRA files"),
    "fuse": Command("sdxl_mel.stages.fuse", "base + LoRA -> checkpoint (fuse_lora.py)"),
    "generate": Command("sdxl_mel.stages.generate", "prompt -> tiles or a long piece, and its sound"),
    "edit": Command("sdxl_mel.stages.edit", "a sound varied, drawn anew in regions, longer, or a loop"),
    "vary": Command("sdxl_mel.stages.vary", "one prompt with many seeds, guidances, strengths or scales, on one page"),
    "stitch": Command("sdxl_mel.stages.stitch", "tiles -> one long picture and its sound (stitch.py)"),
    "cut": Command("sdxl_mel.stages.cut", "a long picture -> overlapping tiles"),
    "evaluate": Command("sdxl_mel.stages.evaluate", "how good generated clips are, with intervals"),
    "convert-clap": Command("sdxl_mel.stages.convert_clap", "LAION's CLAP checkpoint -> a folder for evaluate --clap"),
    "compare": Command("sdxl_mel.stages.compare", "two evaluations, or the checkpoints of a run, side by side"),
    "export": Command("sdxl_mel.stages.export", "base + LoRA -> a page that draws in the browser"),
    "studio": Command("sdxl_mel.studio.command", "all of it in a page of your browser"),
    "demo": Command("sdxl_mel.demo.command", "the whole job on rendered music"),
}


def run_command(name: str, words: Sequence[str], program: str | None = None) -> StageReport:
    """Run a command of the table with the words of its command line."""
    report: StageReport = COMMANDS[name].load().run(parse_command(name, words, program))
    return report


def parse_command(name: str, words: Sequence[str], program: str | None = None) -> StageConfig:
    """Return the settings that a command line states; `program` is how errors and help call the command.

    Raises InputError for what is unknown or impossible, SystemExit(0) after `--help`.
    """
    program = program or f"sdxl-mel {name}"
    command = COMMANDS[name]
    actions, chosen, rest = command.actions(), "", words
    if setting := command.chosen_by():
        chosen = named_action(words, setting, program) or command.default_action() or ""
        if chosen not in actions:
            known = f"{near_miss(chosen, actions)}; expected one of {', '.join(actions)}"
            raise InputError(f"{program}: --{setting}: found {chosen!r}{known}")
        program = " ".join([program, *command.words_for(chosen)])
    elif "" not in actions:
        chosen, rest = _chosen_action(words, actions, command.default_action(), program)
        program = f"{program} {chosen}"
    return parse_arguments(actions[chosen].settings, rest, program, actions[chosen].examples)


def _chosen_action(
    words: Sequence[str], actions: Mapping[str, Action], default: str | None, program: str
) -> tuple[str, Sequence[str]]:
    first = words[0] if words else ""
    if first in actions:
        return first, words[1:]
    if first in ("-h", "--help", "--help-all"):
        sys.stdout.write("\n".join([*_overview(actions, default, program), ""]))
        raise SystemExit(0)
    if first and not first.startswith("-"):
        raise InputError(f"{program}: unknown action {first!r}{near_miss(first, actions)}; see {program} --help")
    if default is None:
        raise InputError(f"{program}: name one of {', '.join(actions)} first; see {program} --help")
    return default, words


def _overview(actions: Mapping[str, Action], default: str | None, program: str) -> Iterator[str]:
    width = max(map(len, actions))
    yield f"usage: {program} {'ACTION' if default is None else '[ACTION]'} ...\n\nactions:"
    for name, action in actions.items():
        yield f"  {name:<{width}}  {action.purpose}{' (default)' * (name == default)}"
    yield f"\n{program} ACTION --help shows the settings of an action.\n\nexamples:"
    yield from (action.examples for action in actions.values())

"""The command `sdxl-mel STAGE`: a table of the stages, and the door through which each is called."""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console

from sdxl_mel import __version__
from sdxl_mel.arguments import parse_arguments
from sdxl_mel.completion import completion_script
from sdxl_mel.config import StageReport
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.names import near_miss
from sdxl_mel.progress import set_verbosity

INTERRUPTED = 130
EVERYWHERE = {
    "--quiet": "say nothing but the result",
    "--verbose": "say more, libraries included",
    "--debug": "show the full trace of an error",
}


class Stage(NamedTuple):
    """One row of the table: the module that holds Config, run and EXAMPLES, and what the stage is for."""

    module: str
    purpose: str


STAGES = {
    "encode": Stage("sdxl_mel.stages.encode", "sound -> spectrogram picture"),
    "invert": Stage("sdxl_mel.stages.invert", "spectrogram picture -> sound"),
    "roundtrip": Stage("sdxl_mel.stages.roundtrip", "what each step of the codec costs, for your own sound"),
    "inspect": Stage("sdxl_mel.stages.inspect", "show what a file of ours is and what made it"),
    "prepare": Stage("sdxl_mel.stages.prepare", "a folder of music and captions -> training set"),
    "cache": Stage("sdxl_mel.stages.cache", "training set -> latents and text embeddings"),
    "vae-audit": Stage("sdxl_mel.stages.vae_audit", "what the VAE costs, before anyone trains"),
    "train": Stage("sdxl_mel.stages.train", "cache -> LoRA (accelerate launch train_lora.py)"),
    "lora": Stage("sdxl_mel.stages.lora", "convert, describe, compare, resize and extract LoRA files"),
    "fuse": Stage("sdxl_mel.stages.fuse", "base + LoRA -> checkpoint (fuse_lora.py)"),
    "generate": Stage("sdxl_mel.stages.generate", "prompt -> tiles or a long piece, and its sound"),
    "stitch": Stage("sdxl_mel.stages.stitch", "tiles -> one long picture and its sound (stitch.py)"),
    "cut": Stage("sdxl_mel.stages.cut", "a long picture -> overlapping tiles"),
    "evaluate": Stage("sdxl_mel.stages.evaluate", "how good generated clips are, with intervals"),
    "convert-clap": Stage("sdxl_mel.stages.convert_clap", "LAION's CLAP checkpoint -> a folder for evaluate --clap"),
    "compare": Stage("sdxl_mel.stages.compare", "two evaluations, or the checkpoints of a run, side by side"),
    "demo": Stage("sdxl_mel.demo.command", "the whole job on rendered music"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sdxl-mel ...` and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        Console(highlight=False).print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        Console(highlight=False).print(f"sdxl-mel {__version__}")
        return 0
    name, *rest = words
    if name == "completion":
        return guarded(lambda: _print_completion(rest))
    if name not in STAGES:
        meant = near_miss(name, [*STAGES, "completion"])
        return _fail(f"sdxl-mel: unknown command {name!r}{meant}; see sdxl-mel --help")
    return run_stage(name, rest, program=f"sdxl-mel {name}")


def overview() -> str:
    """Return the help of the whole program."""
    rows = "\n".join(f"  {name:<12} {stage.purpose}" for name, stage in STAGES.items())
    switches = "\n".join(f"  {switch:<12} {purpose}" for switch, purpose in EVERYWHERE.items())
    return (
        "usage: sdxl-mel COMMAND [...]\n\nFine-tune Stable Diffusion XL on mel spectrograms and make music with it.\n\n"
        f"commands:\n{rows}\n  completion   a script for bash or zsh that completes commands and settings\n\n"
        f"everywhere:\n{switches}\n\n"
        "sdxl-mel COMMAND --help shows a command's settings, with examples."
    )


def run_stage(name: str, arguments: Sequence[str], program: str) -> int:
    """Run one stage with its arguments; failures become one line and an exit code."""
    words, quiet, verbose, debug = _split_common(arguments)
    set_verbosity(quiet=quiet, verbose=verbose)
    if not verbose:
        _hush_libraries()
    return guarded(lambda: _run(name, words, program), debug=debug)


def guarded(call: Callable[[], StageReport | None], debug: bool = False) -> int:
    """Call a stage and turn what it returns or raises into output and an exit code."""
    try:
        report = call()
    except SdxlMelError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return _print_report(report) if report is not None else 0


def _run(name: str, words: Sequence[str], program: str) -> StageReport | None:
    module = importlib.import_module(STAGES[name].module)
    config = parse_arguments(module.Config, words, program, getattr(module, "EXAMPLES", ""))
    return module.run(config)


def _print_completion(words: Sequence[str]) -> None:
    """Print the completion script of a shell, `bash` if none is named."""
    commands = {name: (importlib.import_module(stage.module).Config, stage.purpose) for name, stage in STAGES.items()}
    sys.stdout.write(completion_script(words[0] if words else "bash", commands, EVERYWHERE))


def _hush_libraries() -> None:
    """Keep what libraries say of absent accelerators and optional packages out of a person's way."""
    for name in ("bitsandbytes", "transformers", "diffusers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _split_common(arguments: Sequence[str]) -> tuple[list[str], bool, bool, bool]:
    given = set(EVERYWHERE).intersection(arguments)
    words = [word for word in arguments if word not in EVERYWHERE]
    return words, "--quiet" in given, "--verbose" in given, "--debug" in given


def _print_report(report: StageReport) -> int:
    console = Console(highlight=False, soft_wrap=True)
    console.print(report.summary(), markup=False)
    for skipped in report.skipped[:20]:
        console.print(f"skipped {skipped.what}: {skipped.why}", markup=False)
    if len(report.skipped) > 20:
        console.print(f"... and {len(report.skipped) - 20} more")
    return report.exit_code


def _fail(message: str, code: int = 2) -> int:
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, style="red", markup=False)
    return code

"""The program `sdxl-mel COMMAND`: calls a command, prints its report or its error, and returns an exit code."""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import get_args

from sdxl_mel import __version__
from sdxl_mel.arguments import Once, Parser
from sdxl_mel.commands import COMMANDS, run_command
from sdxl_mel.config import StageReport
from sdxl_mel.errors import SdxlMelError, in_one_line, printable
from sdxl_mel.names import near_miss
from sdxl_mel.progress import SinkName, named_sink, showing

INTERRUPTED = 130
RED, PLAIN = "\33[31m", "\33[0m"
SKIPPED_SHOWN = 20
PROGRESS = get_args(SinkName)
EVERYWHERE = {
    "--quiet": "print nothing but the result",
    "--verbose": "print more, messages of the libraries included",
    "--debug": "print the full trace of an error",
    "--progress": f"how progress is shown: {', '.join(PROGRESS)}; auto is a bar on a terminal, else lines",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sdxl-mel ...` and return its exit code."""
    _write_any_character()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        return guarded(lambda: print(overview()))
    if words[0] in ("-V", "--version"):
        return guarded(lambda: print(f"sdxl-mel {__version__}"))
    name, *rest = words
    if name == "completion":
        return guarded(lambda: _print_completion(rest))
    if name not in COMMANDS:
        meant = near_miss(name, [*COMMANDS, "completion"])
        return _fail(f"sdxl-mel: unknown command {name!r}{meant}; see sdxl-mel --help")
    return run_stage(name, rest, program=f"sdxl-mel {name}")


def overview() -> str:
    """Return the help of the whole program."""
    rows = "\n".join(f"  {name:<12} {command.purpose}" for name, command in COMMANDS.items())
    switches = "\n".join(f"  {switch:<12} {purpose}" for switch, purpose in EVERYWHERE.items())
    return (
        "usage: sdxl-mel COMMAND [...]\n\nFine-tune Stable Diffusion XL on mel spectrograms and make music with it.\n\n"
        f"commands:\n{rows}\n  completion   a script for bash or zsh that completes commands and settings\n\n"
        f"everywhere:\n{switches}\n\n"
        "sdxl-mel COMMAND --help shows a command's settings, with examples."
    )


def run_stage(name: str, arguments: Sequence[str], program: str) -> int:
    """Run one command with its arguments; failures become one line and an exit code."""
    _write_any_character()
    call = lambda: _run(name, arguments, program)  # noqa: E731
    return guarded(call, debug="--debug" in arguments, verbose="--verbose" in arguments)


def guarded(call: Callable[[], StageReport | None], debug: bool = False, verbose: bool = False) -> int:
    """Call a stage and turn what it returns or raises into output and an exit code.

    With `debug` errors show their trace, with `verbose` all that was left out is listed.
    """
    try:
        report = call()
        code = _print_report(report, len(report.skipped) if verbose else SKIPPED_SHOWN) if report is not None else 0
        sys.stdout.flush()
    except SdxlMelError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # What no part of the toolkit foresees of a path: a name that is too long, a place that is no folder.
        if not isinstance(error.filename, str):
            raise
        if debug:
            traceback.print_exc()
        return _fail(in_one_line(f"{error.filename}: {error.strerror}; give another path"))
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue", INTERRUPTED)
    return code


def _run(name: str, arguments: Sequence[str], program: str) -> StageReport:
    common, words = common_parser(program).parse_known_args(arguments)
    if not common.verbose:
        _hush_libraries()
    sink: SinkName = "none" if common.quiet else getattr(common, "progress", "auto")
    with showing(named_sink(sink, verbose=common.verbose)):
        return run_command(name, words, program)


def common_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the flags that every command takes."""
    parser = Parser(prog=program, add_help=False, allow_abbrev=False)
    for flag, purpose in EVERYWHERE.items():
        if flag == "--progress":
            parser.add_argument(flag, choices=PROGRESS, action=Once, default=argparse.SUPPRESS, help=purpose)
        else:
            parser.add_argument(flag, action="store_true", help=purpose)
    return parser


def _print_completion(words: Sequence[str]) -> None:
    """Print the completion script of a shell, `bash` if none is named."""
    from sdxl_mel.completion import completion_script  # brings shtab, which no other command needs

    sys.stdout.write(completion_script(words[0] if words else "bash", COMMANDS, common_parser("sdxl-mel")))


def _write_any_character() -> None:
    """Let output go on where the encoding of a terminal or a file lacks a character: it is written as its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hush_libraries() -> None:
    """Keep what libraries say of absent accelerators and optional packages out of a person's way."""
    for name in ("bitsandbytes", "transformers", "diffusers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _print_report(report: StageReport, most: int) -> int:
    print(printable(report.summary()))
    for skipped in report.skipped[:most]:
        what, why = printable(skipped.what), printable(skipped.why)
        print(f"skipped {what}: {why.removeprefix(f'{what}: ')}")
    if len(report.skipped) > most:
        print(f"... and {len(report.skipped) - most} more; --verbose lists all")
    return report.exit_code


def _fail(message: str, code: int = 2) -> int:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"{RED}{message}{PLAIN}" if coloured else message, file=sys.stderr)
    return code

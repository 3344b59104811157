"""The command line: the table of commands, their actions, exit codes, and errors in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdxl_mel import __version__
from sdxl_mel.arguments import build_parser
from sdxl_mel.cli import guarded, main
from sdxl_mel.commands import COMMANDS, parse_command
from sdxl_mel.config import Skipped, StageReport
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.progress import log
from tests.sounds import FIXTURES


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in COMMANDS)
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_an_unknown_command_and_its_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invret"]) == 2
    assert "did you mean 'invert'" in capsys.readouterr().err


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert main(["inspect", "missing.png"]) == 2
    printed = capsys.readouterr()
    assert "missing.png" in printed.err
    assert "\x1b" not in printed.err + printed.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--quiet"], ""),
        (["--progress", "none"], ""),
        (["--progress=lines"], "encoding: 1/1 sounds"),
        (["--progress", "json"], '"what": "encoding"'),
    ],
)
def test_progress_is_shown_as_asked(
    words: list[str], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    band = str(FIXTURES / "band.flac")
    assert main(["encode", band, "--preset", "mini", "--out", str(tmp_path / "a.png"), *words]) == 0
    printed = capsys.readouterr()
    assert shown in printed.err if shown else not printed.err
    assert printed.out.startswith("wrote ")


def test_quiet_says_less_and_verbose_more(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_config: object) -> StageReport:
        log("a step")
        log("a detail", detail=True)
        return StageReport()

    monkeypatch.setattr("sdxl_mel.stages.inspect.run", run)
    said = {}
    for switch in ("--quiet", "--verbose", "--debug", "--progress=none", "--progress=lines"):
        assert main(["inspect", "missing.png", switch]) == 0
        said[switch] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("a ")]
    assert said == {
        "--quiet": [],
        "--verbose": ["a step", "a detail"],
        "--debug": ["a step"],
        "--progress=none": [],
        "--progress=lines": ["a step"],
    }
    assert main(["inspect", "missing.png", "--progress", "json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().err.splitlines()] == [
        {"event": "message", "text": "a step", "detail": False},
        {"event": "message", "text": "a detail", "detail": True},
    ]


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise FormatError("x.png:abc: broken [not markup]")

    def stopped() -> None:
        raise KeyboardInterrupt

    assert guarded(StageReport) == 0
    assert guarded(lambda: StageReport(skipped=(Skipped(what="a.wav", why="empty"),))) == 3
    assert "skipped a.wav: empty" in capsys.readouterr().out
    many = StageReport(skipped=tuple(Skipped(what=f"{n}.wav", why=f"{n}.wav: empty") for n in range(25)))
    guarded(lambda: many)
    assert capsys.readouterr().out.endswith("skipped 19.wav: empty\n... and 5 more; --verbose lists all\n")
    guarded(lambda: many, verbose=True)
    assert capsys.readouterr().out.endswith("skipped 24.wav: empty\n")
    assert guarded(fails) == 2
    assert capsys.readouterr().err == "x.png:abc: broken [not markup]\n"
    assert guarded(stopped) == 130
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)  # A bug is not dressed up as bad input.


def test_what_the_system_says_of_a_path_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    name = 300 * "a"
    assert main(["stitch", name, "--out", "x.png"]) == 2
    assert capsys.readouterr().err == f"{name}: File name too long; give another path\n"

    def without_a_path() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        guarded(without_a_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_setting_of_one_value_is_given_once_in_every_command(name: str) -> None:
    for each, action in COMMANDS[name].actions().items():
        flags = {
            word: argument
            for argument in build_parser(action.settings, "")._actions
            for word in argument.option_strings
            if word.startswith("--") and argument.nargs != "+" and word not in ("--help", "--help-all")
        }
        assert flags
        for flag, argument in flags.items():
            words = [flag] if argument.nargs == 0 else [flag, "1"]
            with pytest.raises(InputError, match=f"{re.escape(flag)} is given twice"):
                parse_command(name, [*COMMANDS[name].words_for(each), *words, *words])


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_never_fails_for_its_characters(encoding: str) -> None:
    """A log of another encoding, an emoji, and a file name that is not UTF-8, in results, errors and progress."""
    script = (
        "from sdxl_mel.cli import main\n"
        "from sdxl_mel.config import StageReport, Skipped\n"
        "from sdxl_mel.errors import InputError\n"
        "from sdxl_mel.progress import log\n"
        "from sdxl_mel.stages import inspect\n"
        "def run(config):\n"
        "    log('a \\u2192 b \\U0001f3b5')\n"
        "    if 'fail' in str(config.file): raise InputError('c \\udcff \\u2192')\n"
        "    return StageReport(skipped=(Skipped(what='d \\u266a', why='e \\U0001f3b5'),))\n"
        "inspect.run = run\n"
        "codes = [main(['inspect', *words]) for words in (['x'], ['fail'], ['x', '--progress', 'json'])]\n"
        "assert codes == [3, 2, 3], codes\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    printed = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 0, printed
    assert ("\u266a" if encoding == "utf-8" else "\\u266a") in printed and "Traceback" not in printed
    events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [event["text"] for event in events] == ["a \u2192 b \U0001f3b5"]


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "missing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


HEAVY = {
    *("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"),
    *("numpy", "scipy", "librosa", "soundfile", "soxr", "PIL", "matplotlib"),
    *("rich", "jinja2", "shtab", "starlette", "sdxl_mel.sound.melspec"),
}
"""What a help is shown without: the libraries, and the formats, for which eleven specs are checked."""


def test_help_of_every_command_and_action_needs_no_heavy_library() -> None:
    script = (
        "import runpy, sys\n"
        "from sdxl_mel.cli import main\n"
        "from sdxl_mel.commands import COMMANDS\n"
        "main(['--help'])\n"
        "for name, command in COMMANDS.items():\n"
        "    for words in ({*command.actions(), ''}):\n"
        "        try: main([name, *filter(None, [words]), '--help'])\n"
        "        except SystemExit as stop: assert stop.code == 0\n"
        f"        heavy = {HEAVY} & set(sys.modules)\n"
        "        assert not heavy, (name, words, heavy)\n"
        "for script in ('train_lora.py', 'fuse_lora.py', 'stitch.py'):\n"
        "    sys.argv = [script, '--help']\n"
        "    try: runpy.run_path(script, run_name='__main__')\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        f"    heavy = {HEAVY} & set(sys.modules)\n"
        "    assert not heavy, (script, heavy)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


def test_a_command_with_actions_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["lora", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"  {action} " in printed for action in COMMANDS["lora"].actions())
    assert "--rank" not in printed.split("examples:")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lora"], "name one of convert, info"),
        (["lora", "--rank", "3"], "name one of convert, info"),
        (["lora", "mrege"], "unknown action 'mrege' (did you mean 'merge'?)"),
        (["lora", "info", "x", "--how", "sum"], "sdxl-mel lora info: unknown argument '--how'"),
    ],
)
def test_an_action_is_named_first(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "x", "--progress"], "--progress: expected one argument"),
        (["inspect", "x", "--progress", "fast"], "invalid choice: 'fast'"),
        (["inspect", "x", "--progress", "none", "--progress=json"], "--progress is given twice"),
        (["generate", "--prompt=caf\udce9"], "--prompt: 'caf\\\\xe9' is not UTF-8"),
    ],
)
def test_what_every_command_takes_is_checked(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err

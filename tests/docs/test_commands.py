"""What the pages tell people to type is what the program takes."""

from importlib import import_module
from pathlib import Path

import pytest

from sdxl_mel.arguments import parse_arguments
from sdxl_mel.cli import STAGES
from tests.docs.commands import PAGES, Command, shown_commands

COMMANDS = [command for page in PAGES for command in shown_commands(page) if command.stage]


@pytest.mark.parametrize("command", COMMANDS, ids=[f"{command.page}: {command.line[:60]}" for command in COMMANDS])
def test_shown_command_is_understood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    if command.stage == "completion":
        pytest.skip("not a stage; test_walk.py runs it")
    module = import_module(STAGES[command.stage].module)
    parse_arguments(module.Config, command.arguments, f"sdxl-mel {command.stage}")


def test_readme_shows_every_stage() -> None:
    shown = {command.stage for command in COMMANDS}
    assert shown == {*STAGES, "completion"}


@pytest.mark.parametrize("stage", STAGES)
def test_help_fits_a_screen_and_has_examples(
    stage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    module = import_module(STAGES[stage].module)
    with pytest.raises(SystemExit) as end:
        parse_arguments(module.Config, ["--help"], f"sdxl-mel {stage}", module.EXAMPLES)
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert "examples:" in lines
    assert len(lines) <= 40

"""What the pages tell people to type is what the program takes."""

import re
from pathlib import Path

import pytest

from sdxl_mel.commands import COMMANDS, parse_command
from tests.docs.commands import PAGES, Command, shown_commands

SHOWN = [command for page in PAGES for command in shown_commands(page) if command.stage]
HELPS = [(name, action) for name, command in COMMANDS.items() for action in sorted({*command.actions(), ""})]


@pytest.mark.parametrize("command", SHOWN, ids=[f"{command.page}: {command.line[:60]}" for command in SHOWN])
def test_shown_command_is_understood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    if command.stage == "completion":
        pytest.skip("not a stage; test_walk.py runs it")
    assert command.stage is not None
    parse_command(command.stage, command.arguments)


def test_readme_shows_every_stage() -> None:
    shown = {command.stage for command in SHOWN}
    assert shown == {*COMMANDS, "completion"}


@pytest.mark.parametrize(("name", "action"), HELPS, ids=[f"{name} {action}".strip() for name, action in HELPS])
def test_help_fits_a_screen_and_has_examples(
    name: str, action: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        parse_command(name, [*COMMANDS[name].words_for(action), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert "examples:" in lines
    assert len(lines) <= 40


def test_change_one_thing_names_files_that_are_there() -> None:
    root = Path(__file__).parents[2]
    table = (root / "docs" / "pipeline.md").read_text(encoding="utf-8").split("## Change one thing")[1]
    named = re.findall(r"`([a-z0-9_/]+(?:\.py|\.md|/))`", table)
    assert len(named) > 15
    assert not [path for path in named if not any((place / path).exists() for place in (root / "sdxl_mel", root))]

"""What the pages name is there: the files that they link to or quote, and the flags."""

import re
from pathlib import Path

import pytest

from sdxl_mel.cli import EVERYWHERE
from sdxl_mel.commands import COMMANDS
from sdxl_mel.names import settings_of
from tests.docs.commands import PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
QUOTED_FILE = re.compile(r"`((?:sdxl_mel|tests|tools|bench|configs|docs|examples)/[\w/.-]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w(?![\w-])")
OF_THE_PARSER = {"--config", "--help", "--help-all"}
OF_OTHER_PROGRAMS = {
    *("--logdir", "--num_processes", "--num_cpu_threads_per_process", "--directory"),
    *("--work", "--judge", "--kohya", "--style"),
}
"""TensorBoard's, accelerate's, http.server's, those of tools/train_mini_base.py and of `python -m bench`."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pages
def test_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    assert [path for path in QUOTED_FILE.findall(text) if not (ROOT / path).exists()] == []


@pages
def test_flags_are_known(page: Path) -> None:
    models = [action.settings for command in COMMANDS.values() for action in command.actions().values()]
    flags = {f"--{name.replace('_', '-')}" for model in models for name, _ in settings_of(model)}
    shown = set(FLAG.findall(page.read_text(encoding="utf-8")))
    assert shown - flags - set(EVERYWHERE) - OF_THE_PARSER - OF_OTHER_PROGRAMS == set()

"""The commands that the README and the docs show, as lists of words."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
SCRIPTS = {"train_lora.py": "train", "fuse_lora.py": "fuse", "stitch.py": "stitch"}


@dataclass(frozen=True)
class Command:
    """One shown command: its page, the heading it stands under, and its words without a redirection."""

    page: str
    heading: str
    line: str
    words: tuple[str, ...]

    @property
    def script(self) -> str | None:
        """The script that it starts, if it is one of ours."""
        return next((word for word in self.words if word in SCRIPTS), None)

    @property
    def stage(self) -> str | None:
        """The stage that it calls, None for a command of another program."""
        if self.script:
            return SCRIPTS[self.script]
        return self.words[1] if self.words[0] == "sdxl-mel" else None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the stage is told."""
        return self.words[self.words.index(self.script) + 1 :] if self.script else self.words[2:]


def shown_commands(page: Path) -> list[Command]:
    """Return every command in the ```bash blocks of a page, in order."""
    blocks = ((heading, text) for heading, language, text in blocks_of(page) if language == "bash")
    return [_command(page, heading, line) for heading, text in blocks for line in text.replace("\\\n", "").splitlines()]


def blocks_of(page: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the heading, the language and the text of every block of code on a page."""
    heading = language = text = ""
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if inside:
                yield heading, language, text
            inside, language, text = not inside, line.removeprefix("```").strip(), ""
        elif inside:
            text += f"{line}\n"
        elif line.startswith("#"):
            heading = line.lstrip("# ")


def _command(page: Path, heading: str, line: str) -> Command:
    words = shlex.split(line, comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    return Command(page.relative_to(ROOT).as_posix(), heading, line, tuple(words))

"""The commands that the README and the docs show, as lists of words."""

import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
DOORS = {"train_lora.py": "train", "fuse_lora.py": "fuse", "stitch.py": "stitch"}


@dataclass(frozen=True)
class Command:
    """One shown command of ours: where it stands, the stage it calls, and its words."""

    page: str
    line: str
    stage: str
    words: tuple[str, ...]


def shown_commands(page: Path) -> list[Command]:
    """Return the commands of ours in the ```bash blocks of a page, in order."""
    return [command for line in _bash_lines(page) if (command := _command(page, line)) is not None]


def _bash_lines(page: Path) -> list[str]:
    lines: list[str] = []
    inside, pending = False, ""
    for raw in page.read_text(encoding="utf-8").splitlines():
        if raw.startswith("```"):
            inside = raw.strip() == "```bash"
        elif inside:
            pending += raw.rstrip("\\") if raw.endswith("\\") else raw
            if not raw.endswith("\\"):
                lines.append(pending)
                pending = ""
    return lines


def _command(page: Path, line: str) -> Command | None:
    words = shlex.split(line, comments=True)
    name = page.relative_to(ROOT).as_posix()
    if words[:1] == ["sdxl-mel"] and len(words) > 1 and not words[1].startswith("-"):
        return Command(name, line, words[1], tuple(words[2:]))
    for door, stage in DOORS.items():
        if door in words[:8]:
            return Command(name, line, stage, tuple(words[words.index(door) + 1 :]))
    return None

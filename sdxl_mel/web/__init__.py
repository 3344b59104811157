"""The parts of a page: ES modules and style sheets, served as files or set into a page that needs nothing else."""

import re
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIXES = {".css", ".html", ".js", ".svg"}
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w/-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const)\b)", re.MULTILINE)


def names() -> list[str]:
    """Return the names of all files, in order, those in folders as `folder/name`."""
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in SUFFIXES)


def read(name: str) -> str:
    """Return the text of one file."""
    return (FOLDER / name).read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def bundle(name: str) -> str:
    """Return a module and all that it imports as one module, each after those that it imports.

    The modules import names as they are, from files beside them, and share no name.
    """
    parts: dict[str, str] = {}

    def visit(each: str) -> None:
        if each not in parts:
            text = read(each)
            for imported in IMPORT.findall(text):
                visit(imported)
            parts[each] = EXPORT.sub("", IMPORT.sub("", text)).strip()

    visit(name)
    return "\n\n".join(parts.values()) + "\n"

"""The parts of a page: ES modules and style sheets, served as files or set into a page that needs nothing else."""

import re
from functools import lru_cache
from pathlib import Path
from posixpath import dirname, join, normpath

FOLDER = Path(__file__).parent
SUFFIXES = {".css", ".html", ".js", ".svg"}
IMPORT = re.compile(r'^import (?:(\{[^}]*\}) from )?"(\.{1,2}/[\w./-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def names() -> list[str]:
    """Return the names of all files, in order, those in folders as `folder/name`."""
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in SUFFIXES)


def read(name: str) -> str:
    """Return the text of one file."""
    return (FOLDER / name).read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def bundle(name: str) -> str:
    """Return a module and all that it imports as one module, each after those that it imports.

    Every module but the first keeps a scope of its own. They import names, not defaults, and not in a circle.
    """
    parts: dict[str, str] = {}

    def visit(each: str) -> None:
        if each in parts:
            return
        text = read(each)
        imported = {path: normpath(join(dirname(each), path)) for _, path in IMPORT.findall(text)}
        for other in imported.values():
            visit(other)
        body = IMPORT.sub(lambda found: _taken(found[1], imported[found[2]]), text)
        body, names = EXPORT.sub("", body).strip(), EXPORT.findall(body)
        scope = f"const {_scope(each)} = (() => {{\n{body}\nreturn {{ {', '.join(names)} }};\n}})();"
        parts[each] = body if each == name else scope

    visit(name)
    return "\n\n".join(parts.values()) + "\n"


def _scope(name: str) -> str:
    return re.sub(r"\W", "_", f"from {name}")


def _taken(names: str | None, module: str) -> str:
    return f"const {names.replace(' as ', ': ')} = {_scope(module)};\n" if names else ""

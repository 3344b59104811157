"""The result of a benchmark: a table, and the machine it was made on."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "librosa", "diffusers", "peft")


@dataclass(frozen=True)
class Table:
    """Rows beside each other, made in one run; `notes` say what a reader must know."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as Markdown."""
        return "\n".join([f"## {self.title}", "", self.grid(), *(f"- {note}" for note in self.notes), ""])

    def grid(self) -> str:
        """Return the rows alone, without title and notes, as Markdown."""
        lines = [_row(self.header), _row(["---"] * len(self.header)), *map(_row, self.rows)]
        return "\n".join([*lines, ""])


def machine() -> str:
    """Return one line about the machine and the versions that matter."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [name for name in ("avx2", "avx512f", "amx_bf16") if f" {name}" in flags]
    return " ".join([platform.system(), platform.machine(), *extras])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

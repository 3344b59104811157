"""The measured numbers that the pages state, and the results that they may come from.

A number counts as measured if it has a decimal point or a unit in which results are given, if it is one of `3 of 12`,
or if it begins a cell of a table beyond the first column. What only looks like one is left out by the rules of
`LEFT_OUT`: a setting stands in code, and a column of settings has code as its header.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path

from tests.docs.commands import ROOT

RESULTS = ROOT / "docs" / "results.toml"
REPORT = ROOT / "bench" / "report.md"
DIARY = ROOT / "docs" / "log.md"
"""A diary is its own source: it says what was seen on a day, and is not corrected when something is measured again."""
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {DIARY})]

DIGITS = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)(?:e[-+]?\d+)?"
END = r"(?![\w/(]|\.\d|,\d{3})"
UNIT = r"\s?(?:%|(?:s|ms|seconds|minutes|hours|kB|MB|MiB|GB|GiB|dB|GFLOP|TFLOP|cents|times|M|million|billion)\b)"
CELL = "\ue000"
"""Stands before a number that begins a cell."""
NUMBER = re.compile(rf"(?P<cell>{CELL}\**)?(?<![\w.,/])(?P<digits>{DIGITS}){END}")
MEASURED = re.compile(rf"(?:\s?(?:to|and|or|,|-|/)\s?{DIGITS})*{UNIT}|\sof\s\d")
"""What follows a measured number that has no decimal point."""
BENCHMARK = re.compile(r"python -m bench ([\w-]+)")
LEFT_OUT = {
    "a table that a command makes and a test of its own compares": r"<!-- made by .*?<!-- end -->",
    "a block of code": r"^```.*?^```|^ {4}[^\n]*(?:\n {4}[^\n]*)*",
    "code": r"`(?:[^`\n]|\n(?!\n))+`",
    "the target of a link": r"\]\([^)]*\)",
    "a paper": r"arXiv \d+\.\d+",
    "a version": r"\b(?:SDXL|SD|XL|Python|Firefox|Chrome|Safari|laion_clap|numpy|torch|onnxruntime-web) \d[\d.]*\d?",
    "a date": r"\b\d{4}-\d\d-\d\d",
    "a kind of card": r"\b\d+(?:-\d+)? GB cards?\b|\bcards? of \d+ GB",
    "the level of intervals": r"95 % (?=interval)|\(95 %\)",
    "the value of a symbol": r"\b[^\W\dp_] = [-+]?[\d.,]*\d",
}
"""What is no measurement, by name."""


@dataclass(frozen=True)
class Number:
    """A number as it stands on a page: its line and its digits."""

    line: int
    digits: str

    @property
    def value(self) -> Decimal:
        """Its value, with as many decimals as are written."""
        return Decimal(self.digits.replace(",", ""))

    def rounds(self, source: Decimal) -> bool:
        """Return whether it is `source`, or that rounded; never with more decimals than the source has."""
        decimals = self.value.as_tuple().exponent
        assert isinstance(decimals, int)
        return Decimal(10) ** decimals >= 2 * abs(self.value - source) and source.as_tuple().exponent <= decimals


@dataclass(frozen=True)
class Result:
    """Values that one command made or one file sets, and the pages that quote them."""

    name: str
    pages: tuple[str, ...]
    command: str | None
    made: date | None
    file: str | None
    values: tuple[Decimal, ...]


def measured_numbers(text: str) -> Iterator[Number]:
    """Yield the measured numbers of a page in Markdown."""
    text = "\n".join(_with_marked_cells(text.splitlines()))
    for rule in LEFT_OUT.values():
        text = re.sub(rule, lambda match: "§" + "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    for match in NUMBER.finditer(text):
        alone = "." not in match["digits"] and "e" not in match["digits"] and not match["cell"]
        if alone and not MEASURED.match(text, match.end()) and not re.search(r"\d of $", text[: match.start()]):
            continue
        yield Number(text.count("\n", 0, match.start()) + 1, match["digits"])


def _with_marked_cells(lines: Sequence[str]) -> Iterator[str]:
    """Mark the numbers that begin cells of tables, and empty the columns of settings."""
    settings: list[bool] = []
    for line in lines:
        if not line.startswith("|"):
            settings = []
            yield line
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not settings:
            settings = [cell.startswith("`") for cell in cells]
            yield line
            continue
        marked = [cells[0], *(re.sub(r"^(?=\**[-+]?[.\d])", CELL, cell) for cell in cells[1:])]
        yield "|".join("" if setting else cell for cell, setting in zip_longest(marked, settings, fillvalue=""))


def results() -> list[Result]:
    """Return what stands in docs/results.toml."""
    tables = tomllib.loads(RESULTS.read_text(encoding="utf-8"), parse_float=Decimal)
    return [
        Result(
            name,
            tuple(each["pages"]),
            each.get("command"),
            each.get("date"),
            each.get("file"),
            tuple(_values(each["values"])),
        )
        for name, each in tables.items()
    ]


def _values(table: dict[str, object]) -> Iterator[Decimal]:
    for value in table.values():
        yield from map(Decimal, value if isinstance(value, list) else [value])  # type: ignore[arg-type]


def benchmarks() -> dict[str, tuple[Decimal, ...]]:
    """Return the numbers of every table of bench/report.md by the name of its benchmark, which begins its title."""
    sections = re.split(r"^## ", REPORT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        section.split(maxsplit=1)[0].rstrip(":"): tuple(
            Number(0, match["digits"]).value for match in NUMBER.finditer(re.sub(r"\bx\b", " ", section))
        )
        for section in sections
    }


def without_source(page: str, text: str, found: Sequence[Result]) -> list[str]:
    """Return a line for every measured number of a page that has no source: its place and its digits.

    A row of a table that names a benchmark draws on it alone; all else on the benchmarks that are named in its section,
    outside of tables, and on the results that list the page.
    """
    tables, lines = benchmarks(), text.splitlines()
    listed = [value for result in found if page in result.pages for value in result.values]

    def sources(line: int) -> list[Decimal]:
        row = BENCHMARK.findall(lines[line - 1]) if lines[line - 1].startswith("|") else []
        named = row or BENCHMARK.findall(_section(lines, line))
        return [value for name in named for value in tables.get(name, ())] + ([] if row else listed)

    return [
        f"{page}:{number.line}: {number.digits}"
        for number in measured_numbers(text)
        if not any(number.rounds(value) for value in sources(number.line))
    ]


def _section(lines: Sequence[str], line: int) -> str:
    """Return what stands between the headings around a line, without tables."""
    headings = [0, *(number for number, each in enumerate(lines, 1) if re.match("#+ ", each)), len(lines) + 1]
    first = max(heading for heading in headings if heading <= line)
    after = min(heading for heading in headings if heading > line)
    return "\n".join(each for each in lines[first : after - 1] if not each.startswith("|"))


def page_of(path: Path) -> str:
    """Return the name of a page as results list it."""
    return path.relative_to(ROOT).as_posix()

"""The table of all effects in docs/training.md, made from the results that are there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.ablations.effects import Effects, effects
from bench.ablations.results import Finished
from bench.ablations.rows import BASELINE, FLOOR, ORIGINAL, OURS, Row
from bench.table import Table
from sdxl_mel.files.atomic import write_text
from sdxl_mel.metrics.intervals import Interval

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- made by python -m bench ablations -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Column:
    """A measure: its heading, its decimals, what more and less of it means, and the rows that it cannot compare."""

    measure: str
    heading: str
    digits: int
    more: str
    less: str
    without: tuple[str, ...] = ()

    def of(self, runs: Finished) -> dict[tuple[str, int], float]:
        """Return this measure of the runs that it compares."""
        return {key: float(getattr(run, self.measure)) for key, run in runs.items() if key[0] not in self.without}


COLUMNS = (
    Column("new_found", "new found", 2, "learns more", "learns less"),
    Column("known_found", "known found", 2, "keeps more", "forgets more"),
    Column("frechet", "FAD", 3, "FAD worse", "FAD better"),
    Column("diversity", "diversity", 1, "more diverse", "less diverse"),
    # The seed of a training draws the noise by which it is judged, so those of another seed are judged otherwise.
    Column("held_out", "held-out error", 4, "held-out error higher", "held-out error lower", (FLOOR.name,)),
)


def table(runs: Finished, rows: Sequence[Row] = (FLOOR, *ORIGINAL, *OURS)) -> Table:
    """Return the table: a row a change, with the effect on each measure and what is said of it; empty without runs."""
    by_measure = {column: effects(column.of(runs), BASELINE.name) for column in COLUMNS}
    body = [_row(row, by_measure, runs) for row in rows if row.name in by_measure[COLUMNS[0]].of]
    header = ["change", "the original's verdict", "ours", *(column.heading for column in COLUMNS), "runs"]
    return Table("ablations: what each setting does", header, [_baseline(by_measure, runs), *body] if body else [])


def verdict(row: Row, by_measure: Mapping[Column, Effects]) -> str:
    """Return what may be said of a row: the measures whose interval excludes 0, else that nothing may."""
    said = [_said(column, found.of[row.name]) for column, found in by_measure.items() if row.name in found.of]
    return ", ".join(filter(None, said)) or "indeterminate"


def write_page(made: Table, page: Path = PAGE) -> None:
    """Put the table where the page has its marks, nothing where it is empty."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(page, before + BEGIN + (made.grid() if made.rows else "") + END + after)


def _said(column: Column, effect: Interval) -> str:
    if effect.low is None or effect.high is None or effect.low <= 0 <= effect.high:
        return ""
    return column.more if effect.value > 0 else column.less


def _row(row: Row, by_measure: Mapping[Column, Effects], runs: Finished) -> list[str]:
    told = [
        _told(found.of[row.name], column.digits) if row.name in found.of else "" for column, found in by_measure.items()
    ]
    count = sum(name == row.name for name, _ in runs)
    return [row.change, row.original, verdict(row, by_measure), *told, str(count)]


def _baseline(by_measure: Mapping[Column, Effects], runs: Finished) -> list[str]:
    mine = [run for (name, _), run in runs.items() if name == BASELINE.name]
    cells = []
    for column, found in by_measure.items():
        mean = sum(getattr(run, column.measure) for run in mine) / len(mine)
        spread = "" if found.error is None else f" ± {_number(found.error, column.digits)}"
        cells.append(f"{_number(mean, column.digits)}{spread}")
    return [f"baseline: {BASELINE.change}; ± one run", "", "", *cells, str(len(mine))]


def _told(effect: Interval, digits: int) -> str:
    value = _number(effect.value, digits, sign="+")
    if effect.low is None or effect.high is None:
        return value
    return f"{value} ({_number(effect.low, digits, sign='+')} to {_number(effect.high, digits, sign='+')})"


def _number(value: float, digits: int, sign: str = "") -> str:
    """Return a number as the pages write them, without the zero before the point."""
    return f"{value:{sign}.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.{digits}f}"

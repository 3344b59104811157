"""Every measured number of the README and the docs stands in bench/report.md or in docs/results.toml."""

import shlex
from decimal import Decimal
from pathlib import Path

import pytest

from bench.__main__ import LONG, NAMES
from sdxl_mel.commands import COMMANDS
from tests.docs.commands import ROOT
from tests.docs.numbers import PAGES, Number, Result, benchmarks, measured_numbers, page_of, results, without_source

RESULTS = results()


@pytest.mark.parametrize("path", PAGES, ids=page_of)
def test_every_number_has_a_source(path: Path) -> None:
    assert without_source(page_of(path), path.read_text(encoding="utf-8"), RESULTS) == []


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.name)
def test_every_result_is_quoted_where_it_says(result) -> None:
    for page in result.pages:
        numbers = list(measured_numbers((ROOT / page).read_text(encoding="utf-8")))
        assert any(number.rounds(value) for number in numbers for value in result.values), page


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.name)
def test_every_result_says_what_makes_it(result) -> None:
    if result.file:
        assert (ROOT / result.file).exists()
        assert result.command is result.made is None
        return
    assert result.made
    match shlex.split(result.command):
        case ["sdxl-mel", stage, *_]:
            assert stage in COMMANDS
        case ["python", "-m", "bench", name, *_]:
            assert name in (*NAMES, *LONG)
        case ["python", "-m", module, *_]:
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        case ["python" | "pytest" | "accelerate", *words]:
            assert any((ROOT / word.split("::")[0]).is_file() for word in words)
        case _:
            pytest.fail(f"{result.command}: no command of ours")


def test_tables_of_benchmarks_begin_with_their_names() -> None:
    assert set(benchmarks()) <= {*NAMES, *LONG}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it takes 12 to 15 minutes, 859 s", ["12", "15", "859"]),
        ("found .93 (.88 to .95) of 200 prompts", [".93", ".88", ".95"]),
        ("right in 14 of 15; z +0.32, p = 4e-15", ["14", "15", "+0.32", "4e-15"]),
        ("| what | is |\n|---|---|\n| 20 steps | 30 |\n| in .5 s | **1,024** |", ["30", ".5", "1,024"]),
        ("| `strength` | heard |\n|---|---|\n| .3 | .92 |", [".92"]),
        ("batch 2, rank 32 on 722 layers, from 2023", []),
        ("`--strength 0.5` keeps `1.5 s`", []),
        ("```bash\nsleep 3 s\n```\n\n    sleep 2.5 s\n", []),
        ("arXiv 2303.09556, SDXL 1.0, Python 3.11, laion_clap 1.1.5", []),
        ("a 24 GB card, the 95 % interval, at δ = 0.05", []),
        ("[a sound](tone-0.5.wav)", []),
    ],
)
def test_what_counts_as_measured(text: str, expected: list[str]) -> None:
    assert [number.digits for number in measured_numbers(text)] == expected


@pytest.mark.parametrize(
    ("digits", "source", "same"),
    [
        (".93", ".927", True),
        (".93", ".924", False),
        ("-32.7", "-32.65", True),
        ("14", "14.3", True),
        ("2,100", "2100", True),
        (".90", ".9", False),
    ],
)
def test_a_number_may_be_rounded(digits: str, source: str, same: bool) -> None:
    assert Number(1, digits).rounds(Decimal(source)) is same


def test_a_number_without_source_is_named_by_its_place() -> None:
    result = Result("time", ("page.md",), "sdxl-mel demo", None, None, (Decimal("2.1"),))
    text = "# Page\n\nIt takes 13.4 s or 2 minutes."
    assert without_source("page.md", text, [result]) == ["page.md:3: 13.4"]
    assert without_source("other.md", text, [result]) == ["other.md:3: 13.4", "other.md:3: 2"]


def test_a_row_that_names_a_benchmark_draws_on_it_alone() -> None:
    fuse, prepare = benchmarks()["fuse"], benchmarks()["prepare"]
    value = next(value for value in fuse if not any(Number(1, str(value)).rounds(other) for other in prepare))
    row = f"| in all | {value} s | `python -m bench NAME` |"
    assert without_source("page.md", row.replace("NAME", "fuse"), []) == []
    assert without_source("page.md", row.replace("NAME", "prepare"), []) == [f"page.md:1: {value}"]

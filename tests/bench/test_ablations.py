"""What `python -m bench ablations` concludes from its runs, and that the page says what the committed runs do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from bench.ablations.effects import effects
from bench.ablations.page import BEGIN, END, PAGE, table, write_page
from bench.ablations.results import Measured, finished, missing, read_result, write_result
from bench.ablations.rows import BASELINE, CONFIGS, FLOOR, ROWS, Row, config_of
from sdxl_mel.seeding import numpy_generator

HALVES = Row("halves", "half of it", settings={"optimizer": {"rate": 1.5e-3}})


def runs_of(rows: int, seeds: int, *what: int) -> dict[tuple[str, int], float]:
    """Return numbers without any effect of a row; each seed lifts all rows alike."""
    generator = numpy_generator(0, "ablations", rows, seeds, *what)
    lift, errors = generator.normal(size=seeds), generator.normal(size=(rows, seeds)) * 0.1
    names = [BASELINE.name, *(f"row {index}" for index in range(1, rows))]
    return {(name, seed): lift[seed] + errors[row, seed] for row, name in enumerate(names) for seed in range(seeds)}


def test_of_two_rows_it_is_the_paired_t_test():
    runs = runs_of(2, 5)
    first, second = ([runs[row, seed] for seed in range(5)] for row in (BASELINE.name, "row 1"))
    expected = scipy.stats.ttest_rel(second, first).confidence_interval()
    found = effects(runs, BASELINE.name).of["row 1"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_complete_block_design_has_the_variance_of_the_textbook():
    runs = runs_of(6, 3)
    numbers = np.array(list(runs.values())).reshape(6, 3)
    rest = numbers - numbers.mean(0) - numbers.mean(1, keepdims=True) + numbers.mean()
    error = np.sqrt(np.square(rest).sum() / 10)
    found = effects(runs, BASELINE.name)
    assert found.error == pytest.approx(error)
    assert found.of["row 2"].value == pytest.approx(numbers[2].mean() - numbers[0].mean())
    assert found.of["row 2"].se == pytest.approx(error * np.sqrt(2 / 3))


def test_without_an_effect_one_interval_in_twenty_excludes_zero():
    found = [effects(runs_of(8, 3, draw), BASELINE.name).of["row 1"] for draw in range(400)]
    outside = sum(not interval.low <= 0 <= interval.high for interval in found)
    assert scipy.stats.binomtest(outside, 400, 0.05).pvalue > 0.01


def test_seeds_without_a_baseline_and_single_runs_say_nothing():
    runs = runs_of(3, 2)
    assert effects(runs | {("row 1", 9): 1e6}, BASELINE.name) == effects(runs, BASELINE.name)
    alone = effects({(BASELINE.name, 0): 1.0, ("row 1", 0): 3.0}, BASELINE.name)
    assert (alone.of["row 1"].value, alone.of["row 1"].low, alone.error) == (2.0, None, None)


def measured(new_found: float) -> Measured:
    return Measured(new_found, 0.9, 0.1, 30.0, 0.17, 90.0)


def test_a_verdict_needs_an_interval_without_zero():
    found = {BASELINE.name: (0.20, 0.22), FLOOR.name: (0.21, 0.20), HALVES.name: (0.50, 0.53)}
    runs = {(name, seed): measured(each) for name, both in found.items() for seed, each in enumerate(both)}
    assert [row[2] for row in table(runs, [FLOOR, HALVES]).rows] == ["", "indeterminate", "learns more"]
    assert table({}, [FLOOR]).rows == []
    floor = dict(zip(table(runs, [FLOOR, HALVES]).header, table(runs, [FLOOR, HALVES]).rows[1]))
    assert floor["diversity"] and not floor["held-out error"], "its noise is another"


def test_a_run_is_made_anew_only_when_its_settings_changed(tmp_path):
    write_result(HALVES, 0, measured(0.25), tmp_path)
    assert read_result(HALVES, 0, tmp_path) == measured(0.25)
    other = Row("halves", "half of it", settings={"optimizer": {"rate": 1e-3}})
    assert list(missing([HALVES, other], [0, 1], tmp_path)) == [(HALVES, 1), (other, 0), (other, 1)]
    assert finished([HALVES], tmp_path) == {("halves", 0): measured(0.25)}


def test_every_config_of_an_ablation_is_a_row():
    """All but one: the baseline of mini trains its text encoders, and a row leaves them alone."""
    files = {path.stem for path in CONFIGS.glob("*.toml")} - {"base", "mini", "text-encoders"}
    assert {row.file for row in ROWS.values()} - {None} == files


def test_sizes_are_in_proportion():
    rank, batch = (config_of(ROWS[name], 0, Path("c"), Path("o")) for name in ("rank-16", "batch-equal-examples"))
    plain = config_of(BASELINE, 0, Path("c"), Path("o"))
    assert rank.adapter.rank == 16 * plain.adapter.rank
    assert batch.steps * batch.batch == plain.steps * plain.batch
    assert config_of(FLOOR, 2, Path("c"), Path("o")).seed == 102


def test_the_page_has_the_table_of_the_committed_runs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    write_page(table(finished(ROWS.values())), page)
    assert page.read_text() == PAGE.read_text()
    assert BEGIN in PAGE.read_text() and END in PAGE.read_text()


@pytest.mark.slow
def test_a_run_from_its_corpus_to_its_numbers(tmp_path):
    from bench.ablations.judge import Judge
    from bench.ablations.runs import Workplace, carry_out

    place = Workplace(tmp_path, tracks=10)
    judge = Judge(place.dataset, tmp_path)
    row = Row("short", "two steps, another text layer", settings={"steps": 2, "batch": 2}, clip_skip=1)
    first, second = (carry_out(row, 7, place, judge) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert second.seconds < first.seconds
    assert 0 <= first.new_found <= 1 and first.frechet > 0 and first.diversity > 0 and first.held_out > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache-skip-1", "dataset", "reference.npy", "run"]

import numpy as np
import pytest
from scipy import stats

from sdxl_mel.metrics.diversity import pairwise_distance, pairwise_interval
from sdxl_mel.metrics.frechet import distance_between, frechet_change, frechet_interval
from sdxl_mel.metrics.intervals import (
    deal,
    jackknife_interval,
    mean_interval,
    paired_interval,
    proportion_interval,
)
from tests.metrics.simulated import units


def coverage(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


def test_mean_of_independent_values_is_the_t_interval():
    values = np.random.default_rng(0).standard_normal(12)
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("prompts", "seeds"), [(10, 1), (8, 4), (25, 4)])
def test_mean_interval_covers_when_clips_of_a_prompt_are_alike(prompts, seeds):
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(prompts), seeds).tolist()
    found = []
    for _ in range(1500):
        values = np.repeat(generator.normal(0.36, 0.04, prompts), seeds) + generator.normal(0, 0.03, prompts * seeds)
        found.append(mean_interval(values, groups))
    assert 0.90 <= coverage(found, 0.36) <= 0.98


def test_interval_that_ignores_prompts_would_not_cover():
    generator = np.random.default_rng(1)
    found = [mean_interval(np.repeat(generator.normal(0.36, 0.04, 8), 8)) for _ in range(500)]
    assert coverage(found, 0.36) < 0.7


def test_diversity_interval_covers():
    truth = pairwise_distance(units(20000, 24, 0))
    found = [pairwise_interval(units(30, 24, seed), list(range(30)), 0) for seed in range(1, 401)]
    assert 0.90 <= coverage(found, truth) <= 0.98


def test_frechet_interval_covers_what_other_samples_of_this_size_give():
    samples = [(units(40, 16, seed, 0.6), units(60, 16, seed + 5000)) for seed in range(300)]
    truth = np.mean([distance_between(x, y) for x, y in samples])
    found = [
        jackknife_interval(
            lambda kept, x=x, y=y: distance_between(x[kept[0]], y[kept[1]]), [list(range(40)), list(range(60))], 0
        )
        for x, y in samples[:150]
    ]
    assert 0.90 <= coverage(found, truth) <= 0.98


def test_paired_change_of_the_frechet_distance_covers_and_is_narrower():
    samples = []
    for seed in range(150):
        before = units(40, 16, seed, 0.6)
        after = before + 0.2 * (units(40, 16, seed + 9000) - before)
        samples.append((before, after, units(60, 16, seed + 5000)))
    truth = np.mean([distance_between(y, z) - distance_between(x, z) for x, y, z in samples])
    owners, others = np.arange(40), np.arange(60)
    found = [frechet_change((x, owners), (y, owners), (z, others), 0) for x, y, z in samples]
    assert 0.90 <= coverage(found, truth) <= 0.99
    x, y, z = samples[0]
    assert found[0].value == pytest.approx(distance_between(y, z) - distance_between(x, z), abs=1e-6)
    assert found[0].se < 0.6 * np.hypot(*(frechet_interval(w, owners, z, others, 0).se for w in (x, y)))


def test_a_set_is_no_nearer_than_itself():
    rows, owners = units(30, 8, 0), np.arange(30)
    interval = frechet_change((rows, owners), (rows, owners), (units(40, 8, 1), np.arange(40)), 0)
    assert (interval.value, interval.se) == (0.0, 0.0)


def test_proportion_interval_covers():
    generator = np.random.default_rng(2)
    found = [proportion_interval(int(hits), 100) for hits in generator.binomial(100, 0.68, 2000)]
    assert 0.90 <= coverage(found, 0.68) <= 0.98


def test_proportion_interval_has_width_at_the_ends():
    assert proportion_interval(0, 20).high > 0.1
    assert proportion_interval(20, 20).low < 0.9


def test_paired_interval_sees_what_unpaired_cannot():
    generator = np.random.default_rng(3)
    prompts = generator.normal(0.35, 0.1, 20)
    first, second = prompts + generator.normal(0, 0.01, 20), prompts + 0.02 + generator.normal(0, 0.01, 20)
    paired = paired_interval(first, second)
    assert paired.low > 0
    assert mean_interval(first).high > mean_interval(second).low


def test_one_value_has_no_interval():
    interval = mean_interval([0.4])
    assert (interval.value, interval.low, interval.high) == (0.4, None, None)


def test_two_clips_have_no_jackknife():
    interval = jackknife_interval(lambda kept: float(kept[0].sum()), [["a", "b"]], 0)
    assert (interval.value, interval.low) == (2.0, None)


def test_one_prompt_falls_back_to_its_clips():
    assert mean_interval([0.1, 0.2, 0.3], ["p", "p", "p"]) == mean_interval([0.1, 0.2, 0.3])


def test_deal_keeps_groups_whole_and_parts_even():
    groups = [f"file {index // 3}" for index in range(90)]
    parts = deal(groups, 20, seed=1)
    assert all(len({parts[i] for i in range(90) if groups[i] == group}) == 1 for group in groups)
    assert set(np.bincount(parts)) <= {3, 6}
    assert (parts == deal(groups, 20, seed=1)).all()

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
    share_interval,
    tied_interval,
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


@pytest.mark.parametrize("clips", [4, 8, 20])
@pytest.mark.parametrize(
    ("least", "most", "draw"),
    [
        (-1.0, 1.0, lambda generator, shape: np.tanh(generator.normal(1.8, 0.6, shape))),
        (0.0, 1.0, lambda generator, shape: generator.beta(1.0, 8.0, shape)),
        (0.0, np.inf, lambda generator, shape: generator.lognormal(0.0, 0.5, shape)),
    ],
)
def test_interval_of_a_bounded_mean_stays_inside_and_covers(clips, least, most, draw):
    truth = draw(np.random.default_rng(8), 1_000_000).mean()
    plain = [mean_interval(values) for values in draw(np.random.default_rng(9), (1500, clips))]
    found = [each.within(least, most) for each in plain]
    assert all(least < each.low < each.value < each.high < most for each in found)
    assert 0.89 <= coverage(found, truth) <= 0.97
    assert coverage(found, truth) > coverage(plain, truth)


def test_interval_far_from_its_bounds_is_the_t_interval():
    values = np.random.default_rng(0).normal(0.0, 0.01, 50)
    plain, bounded = mean_interval(values), mean_interval(values).within(-1.0, 1.0)
    assert (bounded.low, bounded.high) == (pytest.approx(plain.low, abs=1e-6), pytest.approx(plain.high, abs=1e-6))
    assert plain.within(-np.inf, np.inf) == plain


def test_two_cosines_near_one_stay_below_it():
    """The t interval of these reaches 1.045."""
    values = [0.9836, 0.9934]
    assert mean_interval(values).high > 1.04
    bounded = mean_interval(values).within(-1.0, 1.0)
    assert bounded.low < 0.9836
    assert 0.9934 < bounded.high < 1.0


def test_interval_on_the_scale_of_cosines_is_fishers_z():
    interval = mean_interval([0.7, 0.8, 0.9])
    half = stats.t.ppf(0.975, 2) * interval.se / (1 - interval.value**2)
    bounded = interval.within(-1.0, 1.0)
    expected = np.tanh(np.arctanh(interval.value) + np.array([-half, half]))
    assert (bounded.low, bounded.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_share_of_independent_hits_has_wilsons_interval():
    assert share_interval([1, 0, 0, 1, 0]) == proportion_interval(2, 5)
    assert share_interval([1, 0, 0, 1, 0], list("abcde")) == proportion_interval(2, 5)


@pytest.mark.parametrize("prompts", [6, 20])
def test_share_interval_covers_when_clips_of_a_prompt_are_alike(prompts):
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(prompts), 4).tolist()
    chances = np.repeat(generator.beta(6.0, 2.0, (1000, prompts)), 4, axis=1)
    found = [share_interval(generator.random(prompts * 4) < chance, groups) for chance in chances]
    assert all(0.0 <= each.low < each.high <= 1.0 for each in found)
    assert 0.90 <= coverage(found, 0.75) <= 0.99


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


def test_what_tied_sets_share_cancels_out() -> None:
    """The difference of two means of clips that share most of their spread has the interval of the paired t."""
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 5, 20)
    first, second = shared + generator.normal(0, 0.1, 20), shared + 1 + generator.normal(0, 0.1, 20)
    owner = np.arange(20)
    tied = tied_interval(lambda one, two: float((two - one).mean()), [(first, owner), (second, owner)], 0)
    paired = paired_interval(first, second)
    assert tied.value == pytest.approx(paired.value)
    assert (tied.low, tied.high) == pytest.approx((paired.low, paired.high))


def test_windows_of_a_clip_are_left_out_together() -> None:
    rows, owner = np.repeat(np.arange(5.0), 3), np.repeat(np.arange(5), 3)
    seen = []
    tied_interval(lambda kept: seen.append(sorted(set(kept))) or 0.0, [(rows, owner)], 0)
    assert sorted(map(len, seen)) == [4, 4, 4, 4, 4, 5]

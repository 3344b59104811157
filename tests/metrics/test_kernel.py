import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from sdxl_mel.metrics.kernel import kernel_distance, kernel_sums, median_distance, permutation_p, weighted_bootstrap
from tests.metrics.simulated import units


def kadtk(reference, generated, width):
    """KADTK's formula (kad.py), with the bandwidth that its README documents."""
    gamma = 1 / (2 * width**2)
    kernel = {
        "xx": np.exp(-gamma * cdist(generated, generated, "sqeuclidean")),
        "yy": np.exp(-gamma * cdist(reference, reference, "sqeuclidean")),
        "xy": np.exp(-gamma * cdist(generated, reference, "sqeuclidean")),
    }
    n, m = len(generated), len(reference)
    within = (kernel["xx"].sum() - n) / (n * (n - 1)) + (kernel["yy"].sum() - m) / (m * (m - 1))
    return 100 * (within - 2 * kernel["xy"].mean())


def sums_of(generated, reference, windows=1):
    width = median_distance(reference)
    return kernel_sums(
        generated, np.arange(len(generated)) // windows, reference, np.arange(len(reference)) // windows, width
    )


def test_agrees_with_kadtk():
    generated, reference = units(60, 64, 1, 0.5), units(90, 64, 2)
    expected = kadtk(reference, generated, float(np.median(pdist(reference))))
    assert kernel_distance(sums_of(generated, reference))[0] == pytest.approx(expected, abs=1e-6)


def test_is_unbiased_at_small_n():
    values = [kernel_distance(sums_of(units(10, 32, seed), units(40, 32, seed + 900)))[0] for seed in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_pairs_of_windows_of_one_clip_do_not_count():
    generator = np.random.default_rng(0)
    clips = units(30, 16, 1)
    windows = np.repeat(clips, 4, axis=0) + 1e-6 * generator.standard_normal((120, 16))
    reference = units(50, 16, 2)
    width = median_distance(reference)
    one = kernel_sums(clips, np.arange(30), reference, np.arange(50), width)
    four = kernel_sums(windows, np.arange(120) // 4, reference, np.arange(50), width)
    assert kernel_distance(four)[0] == pytest.approx(kernel_distance(one)[0], abs=1e-4)


def test_rows_may_come_in_any_order():
    generated, reference = units(24, 16, 1, 0.5), units(30, 16, 2)
    order = np.random.default_rng(0).permutation(24)
    owner = np.arange(24) // 3
    width = median_distance(reference)
    straight = kernel_sums(generated, owner, reference, np.arange(30), width)
    shuffled = kernel_sums(generated[order], owner[order], reference, np.arange(30), width)
    assert kernel_distance(shuffled)[0] == pytest.approx(kernel_distance(straight)[0], abs=1e-9)


def test_bootstrap_spread_is_that_of_fresh_samples():
    reference = units(200, 32, 1)
    fresh = [kernel_distance(sums_of(units(25, 32, seed, 0.8), reference))[0] for seed in range(100, 220)]
    drawn = weighted_bootstrap(sums_of(units(25, 32, 7, 0.8), reference), 400, seed=0)
    point = kernel_distance(sums_of(units(25, 32, 7, 0.8), reference))[0]
    assert drawn.mean() == pytest.approx(point, abs=0.3 * np.std(fresh))
    assert 0.6 < drawn.std() / np.std(fresh) < 1.7


def test_interval_covers_what_other_clips_of_both_kinds_give():
    width = median_distance(units(100, 16, 1))
    own, other = np.arange(30), np.arange(60)
    kernels = [
        kernel_sums(units(30, 16, seed, 0.6), own, units(60, 16, seed + 5000), other, width) for seed in range(50, 450)
    ]
    truth = np.mean([kernel_distance(kernel)[0] for kernel in kernels])
    bounds = [np.quantile(weighted_bootstrap(kernel, 300, 0), [0.025, 0.975]) for kernel in kernels[:250]]
    assert 0.90 <= np.mean([low <= truth <= high for low, high in bounds]) <= 0.98


def test_permutation_tells_sets_apart_and_not_halves():
    same = permutation_p(sums_of(units(40, 32, 1), units(40, 32, 2)), 299, seed=0)
    other = permutation_p(sums_of(units(40, 32, 1, 1.0), units(40, 32, 2)), 299, seed=0)
    assert other == pytest.approx(1 / 300)
    assert same > 0.02


def test_permutation_p_is_uniform_under_equality():
    values = [permutation_p(sums_of(units(12, 8, seed), units(15, 8, seed + 500)), 99, seed) for seed in range(120)]
    assert 0.005 <= np.mean(np.array(values) <= 0.05) <= 0.11
    assert 0.4 < np.mean(values) < 0.6

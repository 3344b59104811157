import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import _compute_fid

from sdxl_mel.metrics.frechet import (
    Moments,
    covariance_root,
    curve_over_size,
    distance_between,
    distance_from_moments,
    frechet_distance,
    gaussian,
    line_at_zero,
    noise_floor,
)
from sdxl_mel.metrics.intervals import deal
from tests.metrics.simulated import units

CASES = {
    "N > D": (units(2000, 64, 1), units(1500, 64, 2, 0.5)),
    "N < D": (units(200, 512, 3), units(50, 512, 4, 0.5)),
    "N << D": (units(30, 512, 5), units(10, 512, 6)),
    "identical": (units(30, 512, 7), units(30, 512, 7)),
    "collapsed": (np.repeat(units(1, 64, 8), 10, axis=0), units(30, 64, 9)),
}


def moments(rows):
    return rows.mean(0), np.cov(rows, rowvar=False)


def sqrtm_distance(x, y):
    (m1, s1), (m2, s2) = moments(x), moments(y)
    return np.square(m1 - m2).sum() + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)


@pytest.mark.parametrize("case", ["N > D", "N < D", "N << D", "identical"])  # its eigvals fails on "collapsed"
def test_agrees_with_torchmetrics(case):
    x, y = CASES[case]
    peer = _compute_fid(*(torch.from_numpy(part) for rows in (x, y) for part in moments(rows))).item()
    assert distance_between(x, y) == pytest.approx(peer, abs=1e-6)


@pytest.mark.parametrize("case", ["N > D", "N << D", "identical", "collapsed"])
def test_agrees_with_scipy_sqrtm(case):
    x, y = (rows[:, :128] for rows in CASES[case])
    assert distance_between(x, y) == pytest.approx(sqrtm_distance(x, y), abs=1e-6)


def test_closed_form_of_two_diagonal_gaussians():
    deviations = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.7])
    shift = np.array([0.3, -1.0, 2.0])
    corners = np.array([[sx, sy, sz] for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)]) * np.sqrt(7 / 8)
    expected = np.square(shift).sum() + np.square(deviations[0] - deviations[1]).sum()
    found = frechet_distance(gaussian(corners * deviations[0]), gaussian(corners * deviations[1] + shift))
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.mean_part == pytest.approx(np.square(shift).sum(), abs=1e-12)
    assert found.mean_part + found.covariance_part == pytest.approx(found.value, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 12), st.integers(0, 1000))
def test_is_a_symmetric_distance_that_ignores_rotation(n, m, width, seed):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((n, width)), generator.standard_normal((m, width)) + 1.0
    turn = np.linalg.qr(generator.standard_normal((width, width)))[0]
    assert distance_between(x, y) == pytest.approx(distance_between(y, x), abs=1e-9)
    assert distance_between(x @ turn, y @ turn) == pytest.approx(distance_between(x, y), abs=1e-9)
    assert distance_between(x, x) == pytest.approx(0.0, abs=1e-9)


def test_unit_rows_identity():
    x, y = CASES["N < D"]
    one, two = gaussian(x), gaussian(y)
    nuclear = np.linalg.norm(one.factor @ two.factor.T, "nuc")
    cosine = float(x.mean(0) @ y.mean(0))
    assert cosine == pytest.approx(float((x @ y.T).mean()), abs=1e-12)
    expected = 2 - 2 * cosine + one.trace / len(x) + two.trace / len(y) - 2 * nuclear
    assert distance_between(x, y) == pytest.approx(expected, abs=1e-9)


def test_moments_without_a_part_are_those_of_the_rest():
    x, y = units(90, 32, 1), units(70, 32, 2, 0.4)
    parts = deal([index // 3 for index in range(90)], 7, seed=0)
    pieces = Moments(x, parts)
    root = covariance_root(np.cov(y, rowvar=False))
    for part in (None, 0, 6):
        kept = x if part is None else x[parts != part]
        mean, covariance = pieces.without(part)
        assert np.allclose(mean, kept.mean(0), atol=1e-12)
        assert np.allclose(covariance, np.cov(kept, rowvar=False), atol=1e-12)
        assert distance_from_moments(mean, covariance, y.mean(0), root) == pytest.approx(
            distance_between(kept, y), abs=1e-6
        )


def test_floor_falls_with_the_number_of_clips():
    rows = units(400, 64, 3)
    floors = [noise_floor(rows, np.arange(400), clips, seed=0) for clips in (10, 50, 200)]
    values = [floor.value for floor in floors]
    assert values == sorted(values, reverse=True)
    assert (floors[0].clips, floors[0].against) == (10, 390)


def test_floor_needs_four_reference_clips():
    assert noise_floor(units(3, 8, 0), np.arange(3), 10, seed=0) is None
    assert noise_floor(units(4, 8, 0), np.arange(4), 10, seed=0).clips == 2


def test_curve_falls_towards_its_limit():
    rows = units(120, 64, 4, 0.3)
    curve = curve_over_size(rows, np.arange(120), units(300, 64, 5), seed=0)
    assert curve.sizes[-1] == 120
    assert list(curve.values) == sorted(curve.values, reverse=True)
    assert curve.limit < curve.values[-1]
    assert curve.r_squared > 0.95


def test_line_at_zero_is_exact_on_a_line():
    limit, r_squared = line_at_zero(np.array([0.1, 0.2, 0.4]), np.array([1.2, 1.4, 1.8]))
    assert (limit, r_squared) == (pytest.approx(1.0), pytest.approx(1.0))

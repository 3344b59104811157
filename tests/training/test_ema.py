"""Averages: the power-function profile of EDM2, by its definition."""

import numpy as np
import pytest
import torch

from sdxl_mel.training.ema import Averages, power_decay, power_exponent


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_published_by_edm2(length, gamma):
    assert power_exponent(length) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("length", [0.0, 0.3, -1.0])
def test_impossible_lengths_are_refused(length):
    with pytest.raises(ValueError, match="not between"):
        power_exponent(length)


def test_the_average_weighs_the_past_by_a_power_of_its_time():
    """Weight of step i among n: beta products; its relative spread in time is the length."""
    steps, length = 2000, 0.1
    weights = np.zeros(steps)
    for step in range(1, steps + 1):
        beta = power_decay(step, length)
        weights *= beta
        weights[step - 1] = 1 - beta
    times = (np.arange(steps) + 0.5) / steps
    mean = (weights * times).sum()
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(length, rel=0.02)


def test_several_lengths_and_feedback():
    parameter = torch.zeros(3)
    averages = Averages([parameter], [0.05, 0.2])
    for step in range(1, 101):
        parameter = torch.full((3,), float(step))
        averages.update([parameter], step)
    short, long = (float(averages.tensors[length][0][0]) for length in (0.05, 0.2))
    assert long < short < 100
    averages.feed_back([parameter], 0.5)
    assert float(parameter[0]) == pytest.approx((100 + long) / 2)


def test_the_first_update_takes_the_weights():
    averages = Averages([torch.zeros(2)], [0.1])
    averages.update([torch.ones(2)], 1)
    assert averages.tensors[0.1][0].tolist() == [1.0, 1.0]

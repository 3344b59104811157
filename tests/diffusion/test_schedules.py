"""Schedules: end points, parity with sd-scripts by its formulas, and independence of the batch."""

import pytest
import torch

from sdxl_mel.diffusion.schedules import huber_delta, rate_factor

SDXL = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0)


def _delta(timesteps, **changes):
    settings = {"step": 0, "steps": 100, "start": 0.15, "end": 0.05, "axis": "timestep", "shape": "exponential"}
    return huber_delta(timesteps=torch.tensor(timesteps), alphas_cumprod=SDXL, **{**settings, **changes}).tolist()


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential"])
def test_the_users_recipe_goes_from_start_to_end_along_the_steps(shape):
    assert _delta([500], step=0, axis="step", shape=shape) == pytest.approx([0.15], rel=1e-6)
    assert _delta([500], step=99, axis="step", shape=shape) == pytest.approx([0.05], rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.10), ("cosine", 0.10), ("exponential", (0.15 * 0.05) ** 0.5), ("constant", 0.15)]
)
def test_half_way(shape, middle):
    assert _delta([1], step=50, steps=101, axis="step", shape=shape) == pytest.approx([middle], rel=1e-6)


def test_one_step_is_the_start():
    assert _delta([5], steps=1, axis="step", shape="linear") == pytest.approx([0.15])


@pytest.mark.parametrize(
    ("timestep", "expected"), [(0, 0.950), (50, 0.699), (100, 0.598), (300, 0.368), (500, 0.231), (999, 0.104)]
)
def test_parity_with_sd_scripts_snr(timestep, expected):
    """(1 - c) / (1 + sigma)^2 + c with c = 0.1."""
    assert _delta([timestep], start=1.0, end=0.1, shape="snr") == pytest.approx([expected], abs=1.5e-3)


@pytest.mark.parametrize(("timestep", "expected"), [(0, 1.0), (50, 0.891), (500, 0.316), (900, 0.126)])
def test_parity_with_sd_scripts_exponential(timestep, expected):
    """c^(t/T) * s with c = 0.1, s = 1."""
    assert _delta([timestep], start=1.0, end=0.1) == pytest.approx([expected], abs=1e-3)


def test_parity_with_sd_scripts_constant():
    assert _delta([0, 999], start=0.1, end=0.1, shape="constant") == pytest.approx([0.1, 0.1])


def test_snr_with_both_ends_free():
    assert _delta([0, 400, 999], shape="snr") == pytest.approx([0.144, 0.071, 0.050], abs=1e-3)


def test_every_sample_has_the_delta_of_its_own_timestep():
    together = _delta([10, 400, 900])
    assert together == [_delta([t])[0] for t in (10, 400, 900)]
    assert len(set(together)) == 3


def test_rate_warms_up_linearly_and_ends_at_final():
    rates = [rate_factor(step, 100, "cosine", warmup=4, final=0.1) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[-1] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_rate_stays():
    assert {rate_factor(step, 10, "constant") for step in range(10)} == {1.0}


def test_linear_rate():
    assert rate_factor(5, 11, "linear") == pytest.approx(0.5)

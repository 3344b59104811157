"""Rectified flow against a distribution whose velocity is known in closed form."""

import pytest
import torch

from sdxl_mel.diffusion.flow import flow, state_at

MEAN, DEVIATION, COUNT = 2.0, 0.5, 20_000


def _noise() -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(0))


def _of_a_gaussian(states: torch.Tensor, time: float) -> torch.Tensor:
    """Return E[data - noise | state] where data are N(2, .5): by regression, cov(data - noise, state) / var(state)."""
    variance = (1 - time) ** 2 + (time * DEVIATION) ** 2
    covariance = time * DEVIATION**2 - (1 - time)
    return MEAN + covariance / variance * (states - time * MEAN)


def test_a_way_begins_at_the_noise_and_ends_at_the_data():
    noise, data = torch.randn(3, 1, 4, 8), torch.randn(3, 1, 4, 8)
    states = state_at(noise, data, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(states[0], noise[0])
    assert torch.equal(states[1], data[1])
    assert torch.allclose(states[2], 0.75 * noise[2] + 0.25 * data[2])


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_straight_ways_take_one_step(steps):
    noise, data = _noise(), torch.full((COUNT,), 3.0)
    assert torch.allclose(flow(noise, lambda states, time: data - noise, steps), data, atol=1e-5)


def test_one_step_is_the_mean_and_many_are_the_distribution():
    one = flow(_noise(), _of_a_gaussian, 1)
    assert float(one.std()) == pytest.approx(0, abs=1e-5)
    assert float(one.mean()) == pytest.approx(MEAN, abs=1e-5)
    deviations = [float(flow(_noise(), _of_a_gaussian, steps).std()) for steps in (2, 4, 8, 256)]
    assert deviations == sorted(deviations)
    assert deviations[-1] == pytest.approx(DEVIATION, rel=0.03)


def test_renewed_noise_is_fresh_and_a_sampler_of_its_own():
    """With all of it renewed a step depends on what it found of the data alone; with none nothing is fresh."""
    drawn = []

    def fresh(step: int) -> torch.Tensor:
        drawn.append(step)
        return torch.randn(COUNT, generator=torch.Generator().manual_seed(step + 1))

    assert torch.equal(flow(_noise(), _of_a_gaussian, 4, fresh=fresh), flow(_noise(), _of_a_gaussian, 4))
    assert not drawn
    whole = flow(_noise(), _of_a_gaussian, 4, renewal=1.0, fresh=fresh)
    assert drawn == [0, 1, 2]
    assert abs(float(torch.corrcoef(torch.stack([whole, _noise()]))[0, 1])) < 0.02
    part = flow(_noise(), _of_a_gaussian, 4, renewal=0.3, fresh=fresh)
    assert float(torch.corrcoef(torch.stack([part, _noise()]))[0, 1]) > 0.3
    assert float(whole.mean()) == pytest.approx(MEAN, abs=0.02)

"""Rectified flow against a distribution whose velocity is known in closed form."""

import pytest
import torch

from sdxl_mel.diffusion.flow import earlier, flow, state_at

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


@pytest.mark.parametrize(("steps", "deviation"), [(1, 0.4), (2, 0.494), (32, 0.5)])
def test_steps_lead_to_the_distribution(steps, deviation):
    """By hand: one step multiplies the noise by 1 + a(1/2) (1 + a(0) / 2), a(t) = (t / 4 - (1 - t)) / var(t)."""
    noise = _noise()
    made = flow(noise, _of_a_gaussian, steps)
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(made.std() / noise.std()) == pytest.approx(deviation, rel=0.002)


def test_churn_keeps_the_distribution_and_forgets_the_noise():
    drawn = []

    def fresh(step: int) -> torch.Tensor:
        drawn.append(step)
        return torch.randn(COUNT, generator=torch.Generator().manual_seed(step + 1))

    assert torch.equal(flow(_noise(), _of_a_gaussian, 4, fresh=fresh), flow(_noise(), _of_a_gaussian, 4))
    assert not drawn
    made = flow(_noise(), _of_a_gaussian, 64, churn=0.2, fresh=fresh)
    assert drawn == list(range(1, 64))
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(made.std()) == pytest.approx(DEVIATION, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([made, _noise()]))[0, 1])) < 0.1


def test_states_taken_back_are_states_of_that_time():
    data = MEAN + DEVIATION * torch.randn(COUNT, generator=torch.Generator().manual_seed(5))
    fresh = torch.randn(COUNT, generator=torch.Generator().manual_seed(6))
    states = earlier(0.3 * _noise() + 0.7 * data, 0.7, 0.4, fresh)
    assert float(states.mean()) == pytest.approx(0.4 * MEAN, abs=0.02)
    assert float((states - 0.4 * data).std()) == pytest.approx(0.6, rel=0.02)

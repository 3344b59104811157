"""The losses against values worked out by hand, their limits, and the names people confuse them with."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.diffusion.losses import LOSSES, huber_weight, pseudo_huber, squared_error
from sdxl_mel.diffusion.options import LossName


def _one(residual: float) -> torch.Tensor:
    return torch.full((1, 4, 2, 2), residual)


@pytest.mark.parametrize(
    ("residual", "delta", "normalise", "expected"),
    [
        (0.0, 0.1, "mse", 0.0),
        # sd-scripts: huber 2d(sqrt(r^2+d^2)-d), smooth_l1 2(sqrt(r^2+d^2)-d), with r=3, d=4 so that the root is 5.
        (3.0, 4.0, "mse", 8.0),
        (3.0, 4.0, "l1", 2.0),
        (-3.0, 4.0, "mse", 8.0),
        (0.4, 0.3, "mse", 0.12),
        (0.4, 0.3, "l1", 0.4),
    ],
)
def test_pseudo_huber_by_hand(residual, delta, normalise, expected):
    loss = pseudo_huber(_one(residual), _one(0.0), torch.tensor([delta]), normalise)
    assert loss.shape == (1,)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@given(st.floats(-2, 2), st.floats(1e3, 1e5))
def test_a_large_delta_is_squared_error(residual, delta):
    loss = pseudo_huber(_one(residual), _one(0.0), torch.tensor([delta]))
    assert float(loss) == pytest.approx(residual**2, rel=1e-3, abs=1e-9)


@given(st.floats(0.5, 2), st.floats(1e-5, 1e-4))
def test_a_small_delta_is_absolute_error(residual, delta):
    assert float(pseudo_huber(_one(residual), _one(0.0), torch.tensor([delta]), "l1")) == pytest.approx(
        2 * residual, rel=1e-3
    )


def test_small_residuals_do_not_cancel():
    loss = pseudo_huber(_one(1e-4), _one(0.0), torch.tensor([0.95]))
    assert float(loss) == pytest.approx(1e-8, rel=1e-4)


def test_it_is_not_torchs_huber():
    theirs = torch.nn.functional.huber_loss(_one(0.4), _one(0.0), delta=0.3)
    assert not math.isclose(float(pseudo_huber(_one(0.4), _one(0.0), torch.tensor([0.3]))), float(theirs), rel_tol=0.05)


def test_every_sample_has_its_own_delta():
    prediction = torch.full((2, 4, 2, 2), 0.4)
    loss = pseudo_huber(prediction, torch.zeros_like(prediction), torch.tensor([0.3, 1e4]))
    assert loss.tolist() == pytest.approx([0.12, 0.16], rel=1e-4)


def test_losses_are_fp32_whatever_the_prediction():
    prediction = torch.full((1, 4, 8, 8), 0.1, dtype=torch.bfloat16)
    assert squared_error(prediction, torch.zeros(1, 4, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize(("residual", "delta", "weight"), [(0.20, 0.15, 0.600), (0.05, 0.05, 0.707), (0.8, 0.5, 0.530)])
def test_weight_table_of_the_reference(residual, delta, weight):
    assert float(huber_weight(torch.tensor(residual), torch.tensor(delta))) == pytest.approx(weight, abs=1e-3)


@given(st.floats(0.01, 2), st.floats(0.01, 2))
def test_the_weight_is_the_gradient_over_that_of_squared_error(residual, delta):
    prediction = torch.tensor([[residual]], requires_grad=True)
    pseudo_huber(prediction, torch.zeros(1, 1), torch.tensor([delta])).sum().backward()
    expected = huber_weight(torch.tensor(residual), torch.tensor(delta))
    assert float(prediction.grad) / (2 * residual) == pytest.approx(float(expected), rel=1e-4)


def test_every_name_has_its_loss():
    assert set(LOSSES) == set(get_args(LossName))


@pytest.mark.parametrize("name", LOSSES)
def test_the_pull_of_every_loss_is_its_gradient_over_that_of_squared_error(name):
    residual, delta = torch.tensor([[0.3], [-0.02]]), torch.tensor([0.1, 0.1])
    prediction = residual.clone().requires_grad_()
    LOSSES[name].of_samples(prediction, torch.zeros(2, 1), delta, "mse").sum().backward()
    pull = LOSSES[name].pull(residual[:, 0], delta)
    assert torch.allclose(prediction.grad[:, 0] / (2 * residual[:, 0]), pull)

"""The comparison with kohya's trainer: what is measured of a step, and what is refused."""

import sys
import time

import pytest
import torch

from bench.kohya import interpreter_of, require_packages
from bench.kohya.measure import measure
from sdxl_mel.errors import InputError, MissingError


class Slow(torch.nn.Linear):
    """A layer that takes its time."""

    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)


def test_a_step_is_measured_by_parts():
    layer = Slow(4, 4)

    def step():
        loss = layer(torch.ones(1, 4)).square().sum()
        time.sleep(0.04)
        loss.backward()

    found = measure(step, layer, steps=3)
    assert found["forward"] == pytest.approx(0.02, abs=0.015)
    assert found["rest"] == pytest.approx(0.04, abs=0.03)
    assert 0 < found["backward"] < 0.02
    assert found["peak"] > 10_000_000
    assert not layer._forward_hooks


def test_what_is_no_checkout_or_lacks_packages_is_told(tmp_path):
    with pytest.raises(InputError, match="has no sdxl_train_network.py"):
        interpreter_of(tmp_path)
    with pytest.raises(MissingError, match=r"lacks .*torchvision.* --python"):
        require_packages(sys.executable)
    with pytest.raises(InputError, match="cannot be run"):
        require_packages(str(tmp_path / "python"))

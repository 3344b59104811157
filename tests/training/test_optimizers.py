"""Optimizers by name: they minimise, and rates that cannot be honoured are refused."""

import sys
from typing import get_args

import pytest
import torch

from sdxl_mel.errors import InputError, MissingError
from sdxl_mel.training.optimizers import OPTIMIZERS, OptimizerName, build_optimizer, set_rates
from sdxl_mel.training.state import evaluation_weights

RATES = {"adamw": 0.1, "prodigy": 1.0, "schedule-free": 0.1, "adafactor": 0.1}


def test_every_name_has_its_optimizer():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))


@pytest.mark.parametrize("name", RATES)
def test_they_minimise(name):
    weight = torch.nn.Parameter(torch.full((4, 4), 3.0))
    optimizer = build_optimizer(name, [{"params": [weight], "lr": RATES[name]}], weight_decay=0.0)
    for _ in range(200):
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    with evaluation_weights(optimizer):
        assert float(weight.abs().max()) < 1.5


def test_prodigy_refuses_different_rates():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (1.0, 0.5)]
    with pytest.raises(InputError, match="finds one rate"):
        build_optimizer("prodigy", groups)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(MissingError, match=r"pip install 'sdxl-mel\[optimizers\]'"):
        build_optimizer("adamw-8bit", [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1}])


def test_rates_are_factors_on_those_it_was_built_with():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (0.1, 0.4)]
    optimizer = build_optimizer("adamw", groups)
    for factor in (0.5, 0.5, 1.0):
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor, 0.4 * factor])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["adamw-8bit", "adamw-8bit-paged"])
def test_eight_bits_on_a_gpu(name):
    weight = torch.nn.Parameter(torch.full((128, 128), 3.0, device="cuda"))
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 0.1}], weight_decay=0.0)
    for _ in range(50):
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(weight.abs().max()) < 1.5

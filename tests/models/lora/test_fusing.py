import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sdxl_mel.models.lora.fusing import Change, Loss, fuse_into
from sdxl_mel.models.lora.module import LoraModule
from tests.loras import random_module


def fused(weight: torch.Tensor, changes: list[Change], dtype: torch.dtype) -> tuple[torch.Tensor, Loss]:
    out = torch.full(weight.shape, torch.nan, dtype=dtype)
    return out, fuse_into(out, weight, changes)


LAYERS = [nn.Linear(700, 400), nn.Conv2d(5, 7, 3), nn.Linear(1, 1)]


@given(seed=st.integers(0, 10**6), index=st.integers(0, 2), scales=st.lists(st.floats(-2, 2), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_several_changes_add_up_in_fp32(seed, index, scales):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(LAYERS[index].weight.shape, generator=generator)
    changes = [Change(random_module(LAYERS[index], 3, 2.0, generator), scale) for scale in scales]
    result, loss = fused(weight, changes, torch.float32)
    exact = weight.double() + sum(scale * product(module) for module, scale in changes)
    torch.testing.assert_close(result.double(), exact, atol=1e-6, rtol=1e-6)
    assert loss.error == 0
    change = float((exact - weight).square().sum())
    assert loss.change == pytest.approx(change, rel=1e-3, abs=1e-4)


def product(module: LoraModule) -> torch.Tensor:
    up, down = module.up.double().flatten(1), module.down.double().flatten(1)
    return (up @ down * module.alpha / module.rank).reshape(module.weight_shape)


@pytest.mark.parametrize(
    ("dtype", "rms", "lost"),
    # docs of the format choice: a rank-32 change of weights of 0.03 (fp16 6 % and bf16 45 % of a change of 1e-4).
    [(torch.float16, 1e-3, 0.006), (torch.float16, 1e-4, 0.062), (torch.bfloat16, 1e-4, 0.45)],
)
def test_the_loss_to_rounding_is_the_published_one(dtype, rms, lost):
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(640, 640, generator=generator) * 0.03).to(dtype)
    module = random_module(nn.Linear(640, 640), 32, 32.0, generator)
    module = LoraModule(module.down, module.up * (rms / float(module.product().square().mean().sqrt())), module.alpha)
    result, loss = fused(weight, [Change(module)], dtype)
    measured = (result.double() - weight.double() - product(module)).norm() / product(module).norm()
    assert loss.fraction == pytest.approx(float(measured), rel=1e-3)
    assert loss.fraction == pytest.approx(lost, rel=0.08)
    assert loss.change_rms == pytest.approx(rms, rel=1e-3)


def test_dora_gives_rows_their_lengths():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator)
    plain = random_module(nn.Linear(8, 6), 2, 1.0, generator)
    lengths = torch.rand(6, generator=generator) + 0.5
    result, _ = fused(weight, [Change(LoraModule(plain.down, plain.up, 1.0, lengths))], torch.float32)
    torch.testing.assert_close(result.norm(dim=1), lengths)


def test_too_large_for_fp16_shows_as_an_infinite_error():
    module = LoraModule(torch.ones(1, 2), torch.ones(2, 1) * 1e5, 1.0)
    assert not torch.tensor(fused(torch.zeros(2, 2), [Change(module)], torch.float16)[1].error).isfinite()

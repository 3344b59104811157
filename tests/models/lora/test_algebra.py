import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sdxl_mel.models.lora.algebra import concatenated, extracted, inner, resized
from sdxl_mel.models.lora.fusing import Change
from tests.loras import random_module

SIZES = st.integers(1, 9)


@st.composite
def modules(draw, out=None, inner_size=None):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    kernel = draw(st.sampled_from([None, 3]))
    shape = (inner_size or draw(SIZES), out or draw(SIZES))
    layer = nn.Linear(*shape) if kernel is None else nn.Conv2d(*shape, kernel)
    return random_module(layer, draw(st.integers(1, 6)), draw(st.floats(0.1, 8)), generator)


@given(modules(), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_a_cut_is_the_best_one(module, rank):
    exact = module.product().double().flatten(1)
    values = torch.linalg.svdvals(exact)
    cut = resized(module, rank)
    best = values[rank:].square().sum()
    error = (cut.module.product().double().flatten(1) - exact).square().sum()
    assert float(error) == pytest.approx(float(best), abs=1e-6 * float(values.square().sum()))
    assert cut.kept == pytest.approx(1 - float(best / values.square().sum()), abs=1e-6)
    assert cut.module.alpha == module.alpha
    assert cut.module.rank <= rank
    assert cut.module.weight_shape == module.weight_shape


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_one_module_does_what_several_do(data):
    one = data.draw(modules(3, 4))
    other = random_module(nn.Linear(4, 3) if one.down.ndim == 2 else nn.Conv2d(4, 3, 3), 2, 1.0, torch.Generator())
    scales = data.draw(st.tuples(*[st.floats(-2, 2)] * 2))
    joined = concatenated([Change(one, scales[0]), Change(other, scales[1])])
    torch.testing.assert_close(
        joined.product(), one.product() * scales[0] + other.product() * scales[1], atol=1e-5, rtol=1e-5
    )
    assert joined.rank == one.rank + other.rank


@given(modules())
@settings(max_examples=25, deadline=None)
def test_a_change_of_low_rank_is_extracted_whole(module):
    change = module.product()
    cut = extracted(change, module.rank, torch.Generator().manual_seed(0))
    torch.testing.assert_close(cut.module.product(), change, atol=1e-4, rtol=1e-4)
    assert cut.kept == pytest.approx(1, abs=1e-4)
    assert cut.module.weight_shape == tuple(change.shape)


def test_extraction_of_a_full_matrix_is_as_good_as_the_svd():
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(96, 64, generator=generator) @ torch.diag(torch.logspace(0, -3, 64))
    cut = extracted(change, 8, generator)
    values = torch.linalg.svdvals(change.double())
    assert cut.kept == pytest.approx(float(values[:8].square().sum() / values.square().sum()), abs=1e-6)


@given(modules())
@settings(max_examples=25, deadline=None)
def test_the_inner_product_is_that_of_the_matrices(module):
    assert inner(module, module) == pytest.approx(float(module.product().double().square().sum()), rel=1e-4)

"""Timesteps: one per stratum whoever computes it, the asked distribution, never outside the range."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.diffusion.noise import timesteps_from, uniform_variates


@given(st.integers(0, 1000), st.integers(1, 40))
def test_each_stratum_holds_one(step, batch):
    variates = uniform_variates(7, step, range(batch), batch, stratified=True)
    assert sorted((variates * batch).floor().int().tolist()) == list(range(batch))


@given(st.integers(0, 100), st.integers(2, 24), st.data())
def test_parts_of_a_batch_draw_what_the_whole_draws(step, batch, data):
    cut = data.draw(st.integers(1, batch - 1))
    whole = uniform_variates(7, step, range(batch), batch, stratified=True)
    parts = [uniform_variates(7, step, part, batch, stratified=True) for part in (range(cut), range(cut, batch))]
    assert torch.equal(whole, torch.cat(parts))


def test_strata_are_not_tied_to_places():
    firsts = {float(uniform_variates(7, step, range(1), 8, stratified=True) * 8 // 1) for step in range(60)}
    assert len(firsts) == 8


def test_uniform_covers_the_range_evenly():
    variates = torch.cat([uniform_variates(0, step, range(16), 16, stratified=True) for step in range(200)])
    counts = torch.histc(timesteps_from(variates, 0, 1000).float(), bins=10, min=0, max=1000)
    assert counts.min() > 0.9 * counts.mean()


def test_logit_normal_has_its_median_at_the_sigmoid_of_the_mean():
    variates = (torch.arange(1001) + 0.5).double() / 1001
    drawn = timesteps_from(variates, 0, 1000, distribution="logit-normal", mean=-1.0, std=1.0)
    assert int(drawn.median()) == pytest.approx(1000 / (1 + 2.718281828), abs=3)
    assert drawn.diff().min() >= 0


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 998), st.integers(1, 400))
def test_never_outside_the_range(variate, low, width):
    high = min(low + width, 1000)
    for distribution in ("uniform", "logit-normal"):
        drawn = timesteps_from(torch.tensor([variate]).double(), low, high, distribution=distribution)
        assert low <= int(drawn) < high

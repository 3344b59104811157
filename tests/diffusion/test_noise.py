"""Noise: reproducible, one sample at a time, with the variance each recipe promises."""

import pytest
import torch

from sdxl_mel.diffusion.noise import multires, perturbed, sample_noise
from sdxl_mel.seeding import torch_generator

LATENT = torch.full((4, 16, 32), 0.5)


def _draw(count=400, **settings):
    return torch.stack([sample_noise(LATENT, torch_generator(0, "noise", i), **settings) for i in range(count)])


def test_plain_noise_is_standard_normal_and_reproducible():
    noise = _draw(50)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert torch.equal(noise, _draw(50))


@pytest.mark.parametrize(
    ("settings", "level_variance"),
    [
        ({"offset": 0.5}, 0.25),
        ({"offset": 0.5, "random_offset": True}, 0.25 / 3),
        # adaptive: strength 0.1 + 0.6 * |mean latent 0.5| = 0.4
        ({"offset": 0.1, "adaptive_offset": 0.6}, 0.16),
        ({"offset": 0.1, "adaptive_offset": -0.6}, 0.0),
    ],
)
def test_offset_moves_the_level_of_each_channel(settings, level_variance):
    levels = _draw(**settings).mean(dim=(2, 3))
    assert float(levels.var()) == pytest.approx(level_variance + 1 / 512, rel=0.15)
    assert abs(float((levels[:, 0] * levels[:, 1]).mean())) < 0.03, "channels move on their own"


def test_random_strength_is_drawn_for_each_sample():
    """One strength for the whole batch, as elsewhere, would scale all levels alike; here their tails are heavy."""
    levels = _draw(random_offset=True, offset=2.0).mean(dim=(2, 3))
    kurtosis = float((levels**4).mean() / (levels**2).mean() ** 2)
    assert kurtosis > 4


def test_multires_has_unit_deviation_in_every_sample():
    noise = _draw(30, multires_iterations=6)
    assert noise.flatten(1).std(dim=1).tolist() == pytest.approx([1.0] * 30, abs=1e-5)


def test_multires_does_not_depend_on_the_batch_and_leaves_its_input_alone():
    noise = torch.randn((4, 16, 32), generator=torch_generator(1))
    before = noise.clone()
    first = multires(noise, torch_generator(2), 4, 0.3)
    assert torch.equal(noise, before)
    assert torch.equal(first, multires(noise, torch_generator(2), 4, 0.3))


def test_multires_is_slower_than_white_noise():
    def roughness(noise):
        return float(noise.diff(dim=-1).square().mean() / noise.var())

    assert roughness(_draw(20, multires_iterations=6, multires_discount=0.8)) < 0.8 * roughness(_draw(20))


def test_perturbation_adds_its_variance_and_zero_adds_nothing():
    noise = torch.randn((4, 64, 64), generator=torch_generator(3))
    assert perturbed(noise, torch_generator(4), 0.0) is noise
    extra = perturbed(noise, torch_generator(4), 0.1) - noise
    assert float(extra.std()) == pytest.approx(0.1, rel=0.02)

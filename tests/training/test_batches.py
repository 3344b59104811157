"""Batches: the same numbers wherever they are drawn, equal to what diffusers makes of them."""

import pytest
import torch
from diffusers import DDPMScheduler

from sdxl_mel.errors import FormatError
from sdxl_mel.files.cache import open_cache
from sdxl_mel.training.batches import Diffusion, TrainingData
from sdxl_mel.training.lora_settings import Config, LossSettings
from sdxl_mel.training.lora_task import Objective

SCHEDULER = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
EPSILON = Diffusion(SCHEDULER.alphas_cumprod.double(), "epsilon")
VELOCITY = Diffusion(SCHEDULER.alphas_cumprod.double(), "v_prediction")


@pytest.fixture
def material(small_cache):
    return lambda **settings: _material(small_cache, **settings)


def _material(folder, **settings):
    cache = open_cache(folder)
    splits = {split: cache.examples(split) for split in ("train", "validation", "regularization")}
    config = Config.model_validate({"base": "b", "cache": folder, "out": "o", "batch": 6, **settings})
    encodes = bool(config.adapter.text_encoders)
    return TrainingData(cache, splits, EPSILON, config.data, encodes_captions=encodes)


def test_noising_and_targets_are_those_of_diffusers():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(3, 4, 8, 8, generator=generator), torch.randn(3, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 500, 999])
    assert torch.allclose(
        EPSILON.noisy(latents, noise, timesteps), SCHEDULER.add_noise(latents, noise, timesteps), atol=1e-6
    )
    assert torch.equal(EPSILON.target(latents, noise, timesteps), noise)
    velocity = SCHEDULER.get_velocity(latents, noise, timesteps)
    assert torch.allclose(VELOCITY.target(latents, noise, timesteps), velocity, atol=1e-6)


def test_a_batch_is_the_same_however_it_is_cut(material):
    drawn = material(noise={"offset": 0.1, "random_offset": True}, regularization={"share": 0.5})
    whole = drawn.batch(3, range(6))
    parts = [drawn.batch(3, places) for places in (range(1), range(1, 4), range(4, 6))]
    for name in ("noisy", "target", "timesteps", "weights"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
    assert whole.sources == tuple(source for part in parts for source in part.sources)


def test_steps_and_seeds_differ(material):
    first = material().batch(0, range(6))
    assert not torch.equal(first.target, material().batch(1, range(6)).target)
    assert not torch.equal(first.target, material(seed=1).batch(0, range(6)).target)
    assert torch.equal(first.target, material().batch(0, range(6)).target)


def test_a_clip_twice_in_a_batch_has_its_own_noise(material):
    batch = material(batch=40).batch(0, range(40))
    assert len(set(batch.sources)) < 40
    assert len({float(noise.sum()) for noise in batch.target}) == 40


@pytest.mark.parametrize(("dropout", "expected"), [(0.0, 0), (1.0, 6)])
def test_caption_dropout_gives_the_encoded_empty_caption(material, dropout, expected):
    drawn = material(caption_dropout=dropout)
    empty = drawn.cache.text(drawn.cache.header.empty_text)[0]
    hidden = drawn.batch(0, range(6)).text[0]
    assert sum(bool(torch.equal(each, empty)) for each in hidden) == expected
    assert float(empty.abs().max()) > 0, "unconditional is the encoded empty text, never zeros"


def test_regularisation_can_have_an_empty_caption_of_its_own_share(material):
    drawn = material(caption_dropout=0.0, regularization={"share": 0.5, "caption_dropout": 1.0})
    empty = drawn.cache.text(drawn.cache.header.empty_text)[0]
    batch = drawn.batch(0, range(6))
    assert [bool(torch.equal(each, empty)) for each in batch.text[0]] == [False, True] * 3
    as_all = material(caption_dropout=1.0, regularization={"share": 0.5})
    assert all(torch.equal(each, empty) for each in as_all.batch(0, range(6)).text[0])


def test_wordings_can_be_limited_to_the_first(material):
    drawn = material(caption_variants=1, caption_dropout=0.0, adapter={"text_encoders": ("text_encoder",)})
    captions = {caption for step in range(10) for caption in drawn.batch(step, range(6)).text}
    assert all("number" not in caption for caption in captions)
    both = material(caption_dropout=0.0, adapter={"text_encoders": ("text_encoder",)})
    assert any("number" in caption for step in range(10) for caption in both.batch(step, range(6)).text)


def test_weights_of_examples_and_of_regularisation_multiply_the_loss(material):
    drawn = material(regularization={"share": 0.5, "weight": 0.25})
    assert drawn.batch(0, range(6)).weights.tolist() == [1.0, 0.25] * 3


def test_the_posterior_is_sampled_or_its_mean_taken(material):
    settings = {"noise": {"perturbation": 0.0}, "timesteps": {"low": 0, "high": 1}, "batch": 2}
    first = material(posterior="mean", **settings)
    clip, _ = first.example(0)
    generator = torch.Generator().manual_seed(0)
    mean = first.cache.latents(clip.key)[0] * first.cache.header.scaling_factor
    assert torch.allclose(first.latent(clip, 0, generator), mean)
    assert not torch.allclose(material(**settings).latent(clip, 0, generator), mean)


def test_nan_latents_name_the_clip(material, monkeypatch):
    drawn = material()
    clip, _ = drawn.example(0)
    bad = torch.full((4, 4, 8), float("nan"))
    monkeypatch.setattr(type(drawn.cache), "latents", lambda *_: (bad, bad))
    with pytest.raises(FormatError, match=clip.source):
        drawn.latent(clip, 0, torch.Generator())


def test_regularised_loss_has_the_stated_expectation(material):
    """The mean of weighted losses is (1 - share) train + share x weight x regularisation."""
    drawn = material(batch=8, regularization={"share": 0.25, "weight": 0.5}, loss={"weighting": "none"})
    objective = Objective(LossSettings(weighting="none"), EPSILON, 10)
    total = 0.0
    for step in range(4):
        batch = drawn.batch(step, range(8))
        # A model that is off by 1 on trained clips and by 2 on regularisation.
        off = torch.tensor([1.0 if source.startswith("train") else 2.0 for source in batch.sources])
        losses = objective(batch.target + off.view(-1, 1, 1, 1), batch, step)
        total += float(losses.each.sum()) / 8
    assert total / 4 == pytest.approx(0.75 * 1 + 0.25 * 0.5 * 4, rel=1e-5)


def test_the_raw_error_is_logged_beside_the_weighted_one(material):
    drawn = material(loss={"kind": "huber"})
    objective = Objective(LossSettings(kind="huber", weighting="none"), EPSILON, 11)
    batch = drawn.batch(0, range(6))
    losses = objective(batch.target + 0.2, batch, 5)
    squared, delta = losses.logged["squared_error"], losses.logged["delta"]
    assert (float(squared.total), float(squared.count)) == pytest.approx((6 * 0.04, 6), rel=1e-4)
    assert float(delta.total / delta.count) == pytest.approx(0.1)
    expected = 2 * 0.1 * ((0.04 + 0.01) ** 0.5 - 0.1)
    assert losses.each.tolist() == pytest.approx([expected] * 6, rel=1e-4)


def test_the_pull_of_each_timestep_is_said_before_training():
    line = Objective(LossSettings(kind="huber", weighting="none"), EPSILON, 10).pull_line([0.09] + [0.0] * 9)
    # delta 0.15 against a residual of 0.3: 0.15 / sqrt(0.09 + 0.0225).
    assert line.endswith("0.45 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00")
    # The middle of the first tenth is t = 50, where SDXL's SNR is 19.6: min-SNR weighs it 5 / 19.6.
    first = Objective(LossSettings(), EPSILON, 10).pull_line([0.1] * 10).split(": ")[1].split()[0]
    assert float(first) == pytest.approx(5 / 19.6, abs=0.01)


def test_counting_twice_is_warned_of():
    assert "min-snr" in (Objective(LossSettings(kind="huber"), EPSILON, 10).warning() or "")
    assert Objective(LossSettings(kind="huber", weighting="none"), EPSILON, 10).warning() is None

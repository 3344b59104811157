"""Regularisation towards the base's own predictions: what is held, what is not, and that it does not depend on cuts."""

import pytest
import torch

from sdxl_mel.diffusion.conditioning import unet_conditions
from sdxl_mel.files.cache import open_cache
from sdxl_mel.models.base import open_base
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.training.batches import is_regularized
from sdxl_mel.training.lora_run import header_of_run, open_splits, open_task
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.run import start_run

SHARE = 0.5


@pytest.fixture(scope="module")
def opened(slim_sdxl, small_cache, tmp_path_factory):
    """Return a LoRA on the UNet and a text encoder, as it begins and after its weights were moved."""
    config = Config(
        base=str(slim_sdxl),
        cache=small_cache,
        out=tmp_path_factory.mktemp("run") / "run",
        batch=6,
        trackers=(),
        adapter={"rank": 2, "rank_dropout": 0.2, "module_dropout": 0.2, "text_encoders": ["text_encoder"]},
        loss={"weighting": "none"},
        regularization={"share": SHARE, "target": "base"},
    )
    with start_run(config) as run:
        base = open_base(config.base, ("unet", *TEXT_ENCODERS), run.dtype)
        cache = open_cache(config.cache)
        header = header_of_run(config, run, base, cache)
        return open_task(config, base, cache, open_splits(config, cache), header=header, accelerator=run.accelerator)


@pytest.fixture
def moved(opened):
    generator = torch.Generator().manual_seed(0)
    before = {name: parameter.detach().clone() for name, parameter in opened.parameters.items()}
    with torch.no_grad():
        for parameter in opened.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    yield opened
    with torch.no_grad():
        for name, parameter in opened.parameters.items():
            parameter.copy_(before[name])


def kept(batch):
    return [place for place, slot in enumerate(batch.slots) if is_regularized(slot, SHARE)]


def test_a_fresh_lora_has_nothing_to_lose(opened):
    batch = opened.batch(0, range(6))
    losses = opened.losses(batch, 0).each
    held = torch.zeros(6).index_fill(0, torch.tensor(kept(batch)), 1).bool()
    assert held.sum() == 3
    assert torch.allclose(losses[held], torch.zeros(3), atol=1e-9)
    assert (losses[~held] > 0.1).all()


def test_the_loss_is_the_distance_to_what_an_untouched_base_predicts(moved, slim_sdxl):
    """The reference is a second base that never had a LoRA."""
    batch = moved.batch(0, range(6))
    base = open_base(str(slim_sdxl), ("unet", *TEXT_ENCODERS), torch.float32)
    with torch.no_grad():
        conditions = unet_conditions(encode_prompts(base, batch.text), moved.model.time_ids)
        alone = base.unet(batch.noisy, batch.timesteps, **conditions).sample
        losses = moved.losses(batch, 0)
        own = moved.model.predict(batch)
    for place in range(6):
        target = alone[place] if place in kept(batch) else batch.target[place]
        assert float(losses.each[place]) == pytest.approx(float((own[place] - target).square().mean()), rel=1e-4)
    raw = (own - batch.target).square().mean()
    logged = losses.logged["squared_error"]
    assert float(logged.total / logged.count) == pytest.approx(float(raw), rel=1e-4)


def test_a_batch_has_the_same_losses_however_it_is_cut(moved):
    whole = moved.losses(moved.batch(0, range(6)), 0).each
    parts = [moved.losses(moved.batch(0, places), 0).each for places in (range(1), range(1, 6))]
    assert torch.allclose(whole, torch.cat(parts), rtol=1e-4)


def test_what_sat_out_sits_out_again(moved):
    adapters = moved.model.adapters
    adapters.draw_masks(0, 0, [0], 0.0, 0.3)
    before = [layer.skipped for layer in adapters.layers.values()]
    with pytest.raises(ZeroDivisionError), adapters.switched_off():
        assert all(layer.skipped for layer in adapters.layers.values())
        raise ZeroDivisionError
    assert [layer.skipped for layer in adapters.layers.values()] == before
    assert 0 < sum(before) < len(before)

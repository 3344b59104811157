"""The mini base that ships: small, SDXL by architecture, loaded by diffusers alone, and it makes a tile."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from sdxl_mel.assets import MINI
from sdxl_mel.corpus.instruments import INSTRUMENTS
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.models.base import open_base
from sdxl_mel.models.folder import Folder
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.small_decoder import small_decoder_for
from sdxl_mel.seeding import torch_generator

FORMER_VAE = "8e395612f6975b598a42044fcb50fe1b5e8a4c39b8430b4e29f9450a50233f9a"
"""The VAE of the recipe of docs/mini_base.md, whose latents all caches of mini hold."""


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    made = StableDiffusionXLPipeline.from_pretrained(MINI, dtype=torch.float32, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def test_it_is_at_most_fifty_megabytes_of_float16() -> None:
    sizes = {file.relative_to(MINI).as_posix(): file.stat().st_size for file in Path(MINI).rglob("*") if file.is_file()}
    # The step adapter is a companion, not the base: all that ships together stays under 70 MB.
    assert sizes.pop("step_adapter.safetensors") <= 4e6
    assert sum(sizes.values()) <= 50e6


def test_it_is_shaped_as_sdxl_is(pipeline: StableDiffusionXLPipeline) -> None:
    unet = pipeline.unet.config
    assert unet.addition_embed_type == "text_time"
    widths = pipeline.text_encoder.config.hidden_size, pipeline.text_encoder_2.config.hidden_size
    assert unet.cross_attention_dim == sum(widths)
    projection = pipeline.text_encoder_2.config.projection_dim
    assert unet.projection_class_embeddings_input_dim == projection + 6 * unet.addition_time_embed_dim
    assert pipeline.vae_scale_factor == 8
    assert pipeline.vae.config.latent_channels == 4
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert not pipeline.config.force_zeros_for_empty_prompt


def test_its_files_name_no_place_on_a_machine() -> None:
    assert not [file for file in Path(MINI).rglob("*.json") if "_name_or_path" in file.read_text(encoding="utf-8")]


def test_it_says_the_guidance_it_was_judged_at() -> None:
    header = read_model_header(MINI)
    assert header is not None
    assert header.drawing.guidance == 2.5
    assert header.spec == Folder(MINI).spec


def test_caches_of_the_decoder_that_shipped_before_stay_valid() -> None:
    base = open_base("mini", ("vae",))
    assert base.latents_identity == FORMER_VAE != base.identity_of("vae")


def test_its_small_decoder_is_of_its_vae() -> None:
    base = open_base("mini", ("vae",))
    assert small_decoder_for(base) is not None


def test_every_weight_is_finite(pipeline: StableDiffusionXLPipeline) -> None:
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_its_tokenizers_hold_the_instruments_as_words_and_spell_others(pipeline: StableDiffusionXLPipeline) -> None:
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        assert all(len(tokenizer.tokenize(name)) == len(name.split()) for name in INSTRUMENTS)
        assert tokenizer.tokenize("mel spectrogram") == ["mel</w>", "spectrogram</w>"]
        spelt = tokenizer.tokenize("zither")
        assert "".join(spelt) == "zither</w>" and len(spelt) > 1
        assert tokenizer.model_max_length == 77


def test_a_prompt_becomes_a_tile_that_a_seed_repeats(pipeline: StableDiffusionXLPipeline) -> None:
    def tile(prompt: str) -> np.ndarray:
        generator = torch_generator(0, "tile")
        settings = {"height": 128, "width": 256, "num_inference_steps": 4, "output_type": "np"}
        return pipeline(prompt, generator=generator, guidance_scale=4.0, **settings).images[0]

    first, again, other = tile("solo flute"), tile("solo flute"), tile("solo church organ, baroque chorale")
    assert first.shape == (128, 256, 3)
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01
    assert first.std() > 0.05


def test_the_shipped_oracle_knows_every_instrument_of_the_corpus() -> None:
    assert load_oracle().labels == tuple(INSTRUMENTS)

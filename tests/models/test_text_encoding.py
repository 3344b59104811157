"""Text embeddings equal those of diffusers' own pipeline; sizes stay exact."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from sdxl_mel.diffusion.conditioning import time_ids
from sdxl_mel.errors import InputError
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.text_encoding import encode_prompts, tokens_lost

TEXTS = ["mel spectrogram, violin", "", "a word! and more words than seventy-seven bytes have room for, " * 3]


@pytest.fixture(scope="module")
def base(tiny_sdxl: Path) -> Base:
    return open_base(tiny_sdxl, TEXT_ENCODERS)


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_equal_to_the_pipeline(base: Base, tiny_sdxl: Path, clip_skip: int) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, unet=None, vae=None)
    hidden, _, pooled, _ = pipeline.encode_prompt(TEXTS, clip_skip=clip_skip or None, do_classifier_free_guidance=False)
    ours = encode_prompts(base, TEXTS, clip_skip)
    torch.testing.assert_close(ours.prompt_embeds, hidden, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.pooled_prompt_embeds, pooled, rtol=0, atol=1e-6)


def test_unconditional_is_the_encoded_empty_text(base: Base, tiny_sdxl: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, unet=None, vae=None)
    _, negative, _, pooled = pipeline.encode_prompt("x", negative_prompt="", do_classifier_free_guidance=True)
    ours = encode_prompts(base, [""])
    torch.testing.assert_close(ours.prompt_embeds, negative, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.pooled_prompt_embeds, pooled, rtol=0, atol=1e-6)
    assert ours.prompt_embeds.abs().max() > 0


def test_a_text_does_not_depend_on_its_batch(base: Base) -> None:
    together = encode_prompts(base, TEXTS)
    for index, text in enumerate(TEXTS):
        torch.testing.assert_close(
            encode_prompts(base, [text]).prompt_embeds[0], together.prompt_embeds[index], rtol=0, atol=1e-5
        )


def test_pooled_is_at_the_first_end_even_with_added_tokens(base: Base) -> None:
    before = encode_prompts(base, ["violin"]).pooled_prompt_embeds
    base.tokenizer_2.add_tokens(["<added>"])  # its id is higher than that of the end
    assert torch.equal(encode_prompts(base, ["violin"]).pooled_prompt_embeds, before)


def test_clip_skip_beyond_the_layers(base: Base) -> None:
    with pytest.raises(InputError, match=r"3 layers, so 0 to 2"):
        encode_prompts(base, ["x"], clip_skip=3)
    assert encode_prompts(base, ["x"], clip_skip=2).prompt_embeds.isfinite().all()


def test_gradients_reach_the_encoders_if_wanted(base: Base) -> None:
    weight = base.text_encoder_2.text_projection.weight.requires_grad_(True)
    encode_prompts(base, ["x"]).pooled_prompt_embeds.sum().backward()
    assert weight.grad is not None
    weight.requires_grad_(False)


def test_sizes_are_exact() -> None:
    ids = time_ids(1030, 1292)
    assert ids.dtype == torch.float32
    assert ids.tolist() == [1030, 1292, 0, 0, 1030, 1292]
    assert ids.to(torch.bfloat16).tolist() != ids.tolist()


def test_tokens_lost(base: Base) -> None:
    assert list(tokens_lost(base.reading_tokenizer(), ["x" * 75, "x" * 80])) == [0, 5]

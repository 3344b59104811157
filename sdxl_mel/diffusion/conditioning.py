"""What SDXL's UNet is told besides the noisy latents: the text of two encoders, and six sizes.

Unconditional is the encoded empty text, in training and in generation, as ComfyUI and A1111 do it (diffusers' pipeline
puts zeros there unless it is given a negative prompt).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from sdxl_mel.errors import InputError

PENULTIMATE = 2
"""SDXL reads the last but one layer of both encoders, without the final norm."""


class TextModels(Protocol):
    """The text half of a base."""

    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any


class TextEmbeddings(NamedTuple):
    """`hidden` (batch, tokens, width of both encoders) and `pooled` (batch, projection)."""

    hidden: torch.Tensor
    pooled: torch.Tensor


def encode_prompts(base: TextModels, texts: Sequence[str], clip_skip: int = 0) -> TextEmbeddings:
    """Encode texts with both encoders; gradients flow if the encoders want them.

    `clip_skip` counts layers skipped beyond the penultimate one: 0 is SDXL as it was trained (what SD 1.5 guides call
    "clip skip 2"). Text beyond the encoders' 77 tokens is cut; see `tokens_lost`.
    Raises InputError for a clip_skip that no layer is left for.
    """
    first = _last_states(base.text_encoder, base.tokenizer, texts, clip_skip)
    second = _last_states(base.text_encoder_2, base.tokenizer_2, texts, clip_skip)
    hidden = torch.cat([first.hidden, second.hidden], dim=-1)
    return TextEmbeddings(hidden, base.text_encoder_2.text_projection(second.pooled))


def time_ids(height: int, width: int) -> torch.Tensor:
    """Return (6,) float32: original size, crop (0, 0) and target size of an uncropped picture, (height, width) each.

    Give them to the UNet in float32: bfloat16 would round sizes above 256 that are no multiple of 8.
    """
    return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)


def unet_conditions(text: TextEmbeddings, time_ids: torch.Tensor | None) -> dict[str, Any]:
    """Return what the UNet is told besides latents and timesteps, as its keyword arguments.

    `time_ids` (batch, 6) are SDXL's sizes; a UNet without them is told the prompt's embeddings alone.
    """
    prompt_embeds, pooled_prompt_embeds = text
    conditions: dict[str, Any] = {"encoder_hidden_states": prompt_embeds}
    if time_ids is not None:
        conditions["added_cond_kwargs"] = {"text_embeds": pooled_prompt_embeds, "time_ids": time_ids}
    return conditions


def tokens_lost(base: TextModels, texts: Sequence[str]) -> Iterator[int]:
    """Yield how many tokens of each text lie beyond what the encoders read."""
    for text in texts:
        ids = base.tokenizer_2(text, truncation=False, verbose=False).input_ids
        yield max(0, len(ids) - base.tokenizer_2.model_max_length)


def _last_states(encoder: Any, tokenizer: Any, texts: Sequence[str], clip_skip: int) -> TextEmbeddings:
    layers = encoder.config.num_hidden_layers
    if not 0 <= clip_skip <= layers - PENULTIMATE + 1:
        raise InputError(f"clip_skip {clip_skip}: this text encoder has {layers} layers, so 0 to {layers - 1} can be")
    ids = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids.to(encoder.device)
    output = encoder(ids, output_hidden_states=True)
    # The first end-of-text token: the first tokenizer pads with it too, and an added token may have a higher id.
    end = (ids == tokenizer.eos_token_id).int().argmax(dim=-1)
    pooled = output.last_hidden_state[torch.arange(len(ids), device=ids.device), end]
    return TextEmbeddings(output.hidden_states[-PENULTIMATE - clip_skip], pooled)

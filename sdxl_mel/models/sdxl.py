"""SDXL 1.0 and its fine-tunes: two text encoders, and a UNet that is told the pooled text and six sizes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from sdxl_mel.diffusion.conditioning import TIME_IDS, TextEmbeddings, time_ids
from sdxl_mel.models.family import Component, Configs, Family, shape_problems
from sdxl_mel.models.text_encoding import EncoderOutput, run_encoder

CLIP_L = Component(
    "text_encoder", "CLIPTextModel", "conditioner.embedders.0.transformer.", "clip", "lora_te1_", "tokenizer"
)
OPEN_CLIP_G = Component(
    "text_encoder_2",
    "CLIPTextModelWithProjection",
    "conditioner.embedders.1.model.",
    "open_clip",
    "lora_te2_",
    "tokenizer_2",
    padding="!",
)
PENULTIMATE = 2
"""SDXL reads the last but one layer of both encoders, without the final norm."""


def _encode_prompts(base: Any, texts: Sequence[str], clip_skip: int) -> TextEmbeddings:
    """Return both encoders' layer side by side, and the second one's projected end of text.

    `clip_skip` counts layers skipped beyond the penultimate one: 0 is SDXL as it was trained (what SD 1.5 guides call
    "clip skip 2").
    """
    first = run_encoder(base.text_encoder, base.tokenizer, texts, clip_skip)
    second = run_encoder(base.text_encoder_2, base.tokenizer_2, texts, clip_skip)
    return join_encoders(first, second, base.text_encoder_2.text_projection, clip_skip)


def join_encoders(first: EncoderOutput, second: EncoderOutput, projection: Any, clip_skip: int) -> TextEmbeddings:
    """Return what SDXL reads of its two encoders' output; `projection` is the second one's."""
    prompt_embeds = torch.cat([each.layers[-PENULTIMATE - clip_skip] for each in (first, second)], dim=-1)
    return TextEmbeddings(prompt_embeds, projection(second.end))


def _recognises(configs: Configs, pipeline_class: str) -> bool:
    return configs.get("unet", {}).get("addition_embed_type") == "text_time" or "XL" in pipeline_class


def _instead(configs: Configs) -> str:
    aesthetic = configs.get("text_encoder") is None and configs.get("text_encoder_2") is not None
    return "the SDXL refiner" if aesthetic or configs.get("unet", {}).get("cross_attention_dim") == 1280 else ""


def _problems(configs: Configs) -> Iterator[str]:
    unet, one, two = configs["unet"], configs.get("text_encoder"), configs.get("text_encoder_2")
    yield from shape_problems(unet, (one, two))
    if one is None or two is None:
        return
    pooled = two["projection_dim"] + TIME_IDS * unet.get("addition_time_embed_dim", 256)
    if unet.get("projection_class_embeddings_input_dim") != pooled:
        yield (
            f"its UNet takes {unet.get('projection_class_embeddings_input_dim')} conditioning numbers, its text "
            f"encoder and {TIME_IDS} sizes give {pooled}"
        )


SDXL = Family(
    name="sdxl",
    title="SDXL",
    needed="SDXL 1.0 base or a fine-tune of it (two text encoders, a UNet with text_time conditioning)",
    text_encoders=(CLIP_L, OPEN_CLIP_G),
    attention=(False, True, True),
    kohya_layout="original",
    text_width=2048,
    other_widths={1280: "the SDXL refiner"},
    encode_prompts=_encode_prompts,
    time_ids=time_ids,
    recognises=_recognises,
    instead=_instead,
    problems=_problems,
    modelspec="stable-diffusion-xl-v1-base",
    lora_implementation="https://github.com/Stability-AI/generative-models",
    kohya_version="sdxl_base_v1-0",
    resolution="1024x1024",
    guidance=5.0,
)

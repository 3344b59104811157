"""SD 1.5 and its fine-tunes, Riffusion among them: one text encoder, and a UNet that is told nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.models.family import Component, Configs, Family, shape_problems
from sdxl_mel.models.layouts import module_paths
from sdxl_mel.models.text_encoding import run_encoder

FINAL_NORM = "text_model.final_layer_norm"
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2Img", "StableDiffusionInpaint")


def _encode_prompts(base: Any, texts: Sequence[str], clip_skip: int) -> TextEmbeddings:
    """Return the encoder's last layer but `clip_skip` after the final norm, as A1111 and diffusers do; pooled is empty.

    0 is SD 1.5 as it was trained (A1111's "clip skip 1").
    """
    encoder = base.text_encoder
    layer = run_encoder(encoder, base.tokenizer, texts, clip_skip).layers[-1 - clip_skip]
    norm = encoder.get_submodule(module_paths(encoder, "text_encoder")[FINAL_NORM])
    return TextEmbeddings(norm(layer), layer.new_zeros(len(texts), 0))


def _recognises(configs: Configs, pipeline_class: str) -> bool:
    bare = not pipeline_class and "cross_attention_dim" in configs.get("unet", {})
    return bare or pipeline_class.startswith(PIPELINES)


def _instead(configs: Configs) -> str:
    unet = configs.get("unet", {})
    return "SD 2.x" if unet.get("cross_attention_dim") == 1024 or unet.get("use_linear_projection") else ""


def _problems(configs: Configs) -> Iterator[str]:
    yield from shape_problems(configs["unet"], (configs.get("text_encoder"),))


SD15 = Family(
    name="sd15",
    title="SD 1.5",
    needed="SD 1.5 or a fine-tune of it (one text encoder, a UNet over 768 channels of text)",
    text_encoders=(
        Component("text_encoder", "CLIPTextModel", "cond_stage_model.transformer.", "clip", "lora_te_", "tokenizer"),
    ),
    attention=(True, True, True, False),
    kohya_layout="diffusers",
    text_width=768,
    other_widths={1024: "SD 2.x"},
    encode_prompts=_encode_prompts,
    time_ids=lambda height, width: None,
    recognises=_recognises,
    instead=_instead,
    problems=_problems,
    modelspec="stable-diffusion-v1",
    lora_implementation="diffusers",
    kohya_version="sd_v1",
    resolution="512x512",
    guidance=7.5,
)

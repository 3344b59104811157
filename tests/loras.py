"""Random LoRAs for a given model: every Linear of a transformer, and convolutions if asked."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdxl_mel.models.family import TEXT_ENCODERS, Part
from sdxl_mel.models.lora.file import Lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.scaled import ScaledLora
from sdxl_mel.synthesis.attached import AttachedLoras

TRANSFORMER = (".attentions.", ".self_attn.", ".mlp.")


def linear_paths(part: Part, model: nn.Module, convolutions: bool = False) -> dict[str, nn.Module]:
    """Return the layers that a LoRA of all Linear adapts, by canonical path; optionally every convolution too."""
    found = {}
    for name, layer in model.named_modules():
        path = name if part == "unet" or name.startswith("text_") else f"text_model.{name}"
        linear = isinstance(layer, nn.Linear) and any(mark in f".{name}" for mark in TRANSFORMER)
        if linear or (convolutions and isinstance(layer, nn.Conv2d)):
            found[path] = layer
    return found


def random_modules(
    part: Part, model: nn.Module, rank: int = 2, alpha: float = 1.0, seed: int = 0, convolutions: bool = False
) -> dict[tuple[Part, str], LoraModule]:
    """Return an adapter of visible size for every such layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        (part, path): random_module(layer, rank, alpha, generator)
        for path, layer in linear_paths(part, model, convolutions).items()
    }


def random_module(layer: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> LoraModule:
    """Return a random adapter of one layer."""
    out, inner, *kernel = layer.weight.shape
    return LoraModule(
        down=torch.randn(rank, inner, *kernel, generator=generator) * 0.2,
        up=torch.randn(out, rank, *([1] * len(kernel)), generator=generator) * 0.2,
        alpha=alpha,
    )


def random_lora_modules(pipeline, rank: int = 2, alpha: float = 1.0, convolutions: bool = False):
    """Return adapters for the UNet and every text encoder of a pipeline."""
    modules = random_modules("unet", pipeline.unet, rank, alpha, 0, convolutions)
    for seed, part in enumerate(TEXT_ENCODERS, 1):
        if getattr(pipeline, part, None) is not None:
            modules |= random_modules(part, getattr(pipeline, part), rank, alpha, seed)
    return modules


def attach(base, lora: Lora, scale: float = 1.0) -> AttachedLoras:
    """Put a LoRA on an open base, as `generate` does; what is returned takes it off."""
    attached = AttachedLoras(base)
    attached.replace([ScaledLora(Path("LoRA"), lora, scale)])
    return attached


def meta_sdxl_unet() -> UNet2DConditionModel:
    """Return SDXL 1.0's UNet with its true shapes and no memory (stabilityai/stable-diffusion-xl-base-1.0's config)."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )

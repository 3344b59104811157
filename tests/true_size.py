"""SDXL 1.0 and SD 1.5 with their true shapes and no memory, from their published configs."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl_mel.models.family import Part
from tests.loras import meta_sdxl_unet


def meta_sdxl() -> dict[Part, nn.Module]:
    """Return the models by part, on the meta device (stable-diffusion-xl-base-1.0)."""
    with torch.device("meta"):
        clip_l = CLIPTextModel(_text(width=768, layers=12, heads=12))
        bigg = CLIPTextModelWithProjection(_text(width=1280, layers=32, heads=20))
    return {"unet": meta_sdxl_unet(), "vae": _vae(), "text_encoder": clip_l, "text_encoder_2": bigg}


def meta_sd15() -> dict[Part, nn.Module]:
    """Return the models by part, on the meta device (stable-diffusion-v1-5)."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        clip_l = CLIPTextModel(_text(width=768, layers=12, heads=12))
    return {"unet": unet, "vae": _vae(), "text_encoder": clip_l}


def _vae() -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )


def _text(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )

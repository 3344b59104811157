"""Tiny random bases with the full block topology of SDXL 1.0 and of SD 1.5, saved as any diffusers folder is."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WIDTH = 32
PROJECTION = 48
"""Not equal to any other width, so that a matrix used the wrong way round cannot fit unnoticed."""


def write_tiny_sdxl(
    folder: Path, seed: int = 0, slim: bool = False, unet: UNet2DConditionModel | None = None, text_layers: int = 3
) -> Path:
    """Write a random SDXL of about 1 M parameters: SDXL's blocks and layers per block, or another UNet.

    A `slim` one has one layer wherever SDXL has several: a quarter of the layers, for whole runs.
    """
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(layers=1 if slim else 2),
        text_encoder=CLIPTextModel(_text_config(WIDTH, text_layers)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(PROJECTION, text_layers)),
        tokenizer=byte_tokenizer(pad="<|endoftext|>"),
        tokenizer_2=byte_tokenizer(pad="!"),
        unet=unet or tiny_unet(slim),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )
    torch.random.set_rng_state(state)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_sd15(folder: Path, seed: int = 0, slim: bool = False) -> Path:
    """Write a random SD 1.5 of about 1 M parameters: its four levels of blocks; a `slim` one has one layer a block."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_text_config(WIDTH)),
        tokenizer=byte_tokenizer(pad="<|endoftext|>"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(WIDTH // 2, WIDTH, WIDTH * 2, WIDTH * 2),
            layers_per_block=1 if slim else 2,
            attention_head_dim=2,
            cross_attention_dim=WIDTH,
            norm_num_groups=8,
        ),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    torch.random.set_rng_state(state)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_unet(slim: bool = False, attends: Sequence[bool] = (False, True, True)) -> UNet2DConditionModel:
    """Return SDXL's UNet at a hundredth of its width, with depths of 1, 2 and 3 instead of 1, 2 and 10.

    It has 302 Linear layers, where SDXL's has 722 of the same names; a slim one has 84. `attends` says which levels
    have attention.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(WIDTH, WIDTH, WIDTH * 2),
        layers_per_block=1 if slim else 2,
        down_block_types=tuple("CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)),
        transformer_layers_per_block=(1, 1, 1) if slim else (1, 2, 3),
        attention_head_dim=(2, 2, 4),
        cross_attention_dim=WIDTH + PROJECTION,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=PROJECTION + 6 * 8,
        norm_num_groups=8,
    )


def tiny_vae(scaling_factor: float = 0.13025, layers: int = 2) -> AutoencoderKL:
    """Return an AutoencoderKL with the four levels of SDXL's and SD 1.5's (one latent per 8 x 8 pixels)."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=layers,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        sample_size=128,
        force_upcast=True,
    )


def byte_tokenizer(pad: str) -> CLIPTokenizer:
    """Return a CLIP tokenizer of single bytes: every text is spelt out."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        pad_token=pad,
        model_max_length=77,
    )


def _text_config(width: int, layers: int = 3) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=width * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=PROJECTION,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        hidden_act="quick_gelu" if width == WIDTH else "gelu",
    )

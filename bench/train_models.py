"""Random models and data for the training benchmark: speed and memory do not depend on what weights say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.default_dtype import default_dtype
from sdxl_mel.files.cache import (
    Cache,
    CachedExample,
    CacheHeader,
    ShardHeader,
    latent_shape,
    open_cache,
    shard_name,
    write_cache,
    write_shard,
)
from sdxl_mel.models.family import Family
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.sdxl import SDXL as SDXL_FAMILY
from sdxl_mel.record import Record
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.melspec import PRESETS, MelSpec

TOKENS = 77
TOPOLOGY: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
SDXL_UNET: dict[str, Any] = TOPOLOGY | {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
MINI_UNET: dict[str, Any] = TOPOLOGY | {
    "sample_size": 32,
    "block_out_channels": (64, 128, 256),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 256,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 320,
    "norm_num_groups": 16,
}


@dataclass(frozen=True)
class Size:
    """One size of SDXL: configs, preset, batch, and the widths and layers of its text encoders."""

    name: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], dict[str, Any]]
    spec: MelSpec
    batch: int
    rank: int


MINI = Size(
    "mini, 256 x 128",
    MINI_UNET,
    {"block_out_channels": (32, 64, 128, 160), "layers_per_block": 1, "norm_num_groups": 8},
    ({"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512},) * 2,
    PRESETS["mini"],
    16,
    16,
)
SDXL = Size(
    "SDXL, 1024 x 512",
    SDXL_UNET,
    {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120},
    ),
    PRESETS["std"],
    2,
    32,
)


@dataclass
class Models:
    """A random SDXL; `pooled` is the width of the pooled text."""

    unet: Any
    vae: Any
    text_encoder: Any
    text_encoder_2: Any
    scheduler: Any
    pooled: int
    name: str = "bench"
    family: Family = SDXL_FAMILY
    spec: MelSpec | None = None

    @property
    def architecture(self) -> Architecture:
        """Return the architecture of the UNet."""
        return Architecture(self.family, self.unet.config.layers_per_block)


def random_models(size: Size, device: torch.device, dtype: torch.dtype, whole: bool) -> Models:
    """Return the UNet, and with `whole` the VAE (float32) and the text encoders; frozen."""
    pooled = size.unet["projection_class_embeddings_input_dim"] - 6 * size.unet["addition_time_embed_dim"]
    with torch.device(device):
        with default_dtype(dtype):
            unet = UNet2DConditionModel.from_config(size.unet).requires_grad_(False)
        vae = text_encoder = text_encoder_2 = None
        if whole:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                scaling_factor=0.13025,
                **size.vae,
            )
            texts = [CLIPTextConfig(projection_dim=pooled, **config) for config in size.texts]
            text_encoder = CLIPTextModel(texts[0]).to(dtype)
            text_encoder_2 = CLIPTextModelWithProjection(texts[1]).to(dtype)
            for part in (vae, text_encoder, text_encoder_2):
                part.requires_grad_(False).eval()
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return Models(unet, vae, text_encoder, text_encoder_2, scheduler, pooled)


def random_cache(folder: Path, size: Size, clips: int) -> Cache:
    """Return a cache of random latents and texts."""
    width = size.unet["cross_attention_dim"]
    pooled = size.unet["projection_class_embeddings_input_dim"] - 6 * size.unet["addition_time_embed_dim"]
    keys = tuple(f"latents-{index}" for index in range(clips))
    texts = ("empty", *(f"text-{index}" for index in range(clips)))
    latents = _drawn(clips, *latent_shape(size.spec))
    names = [f"latents/{shard_name('latents', {}, keys)}", f"text/{shard_name('text', {}, texts)}"]
    write_shard(folder / names[0], ShardHeader(kind="latents", about={}, keys=keys), latents, latents - 10)
    header = ShardHeader(kind="text", about={}, keys=texts, labels=texts)
    write_shard(folder / names[1], header, _drawn(len(texts), TOKENS, width), _drawn(len(texts), pooled))
    examples = [
        CachedExample(key, f"train/{key}.png", key, 1.0, 1, "", (key,), (f"text-{index}",))
        for index, key in enumerate(keys)
    ]
    about = CacheHeader(
        spec=size.spec,
        anchor="mel spectrogram",
        clip_skip=0,
        identity={},
        scaling_factor=0.13025,
        empty_text="empty",
        shards=tuple(names),
        examples_sha256="",
        counts={},
        record=Record(stage="bench"),
    )
    write_cache(folder, about, {"train": examples})
    return open_cache(folder)


def finisher(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def _drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(0, "bench train", *shape))

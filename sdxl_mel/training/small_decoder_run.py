"""A run that distils a small decoder, from its settings to its result."""

from typing import Any

import torch

from sdxl_mel.files.cache import Cache, latent_shape, open_cache
from sdxl_mel.files.run import SMALL_DECODER_NAME
from sdxl_mel.files.trajectories import HEADER_NAME
from sdxl_mel.models.base import open_base
from sdxl_mel.models.small_decoder import DecoderShape, SmallDecoder, decoding_flops, small_decoder_of
from sdxl_mel.models.vae import decode
from sdxl_mel.record import sha256_file
from sdxl_mel.training.batches import TrainingData, diffusion_of
from sdxl_mel.training.distillation import Splits, cached_splits, header_of_distillation, write_card
from sdxl_mel.training.drawn_points import open_drawn_points
from sdxl_mel.training.loop import Results
from sdxl_mel.training.lora_task import choose_clips
from sdxl_mel.training.run import Prepared, carry_out, start_run
from sdxl_mel.training.small_decoder_settings import Config
from sdxl_mel.training.small_decoder_task import SmallDecoderTask

MEASURED_ON = 8
"""Pictures that are decoded to find the channels that matter."""


def train_small_decoder(config: Config) -> Results | None:
    """Distil a small decoder, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = cached_splits(cache)
        base = open_base(config.base, ("vae",), vae=config.vae, device=run.device)
        inputs = {"trajectories": sha256_file(config.trajectories / HEADER_NAME)} if config.trajectories else {}
        if (teacher := base.identity_of("vae")) != base.latents_identity:
            inputs["teacher"] = teacher
        header = header_of_distillation(run, base, cache, inputs)
        drawn = None
        if config.trajectories:
            drawn = open_drawn_points(config.trajectories, header, config.drawn, config.seed)
        decoder = pruned(config, base.vae, cache, splits, teacher).to(run.device)
        channels_last = config.hardware.channels_last
        if channels_last if channels_last is not None else True:
            for model in (decoder, base.vae):
                model.to(memory_format=torch.channels_last)
        task = SmallDecoderTask(
            decoder,
            base.vae,
            TrainingData(cache, splits, diffusion_of(base), config.data),
            noise=config.latent_noise,
            slopes=config.loss.slopes,
            rate=config.optimizer.rate,
            clips=choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {},
            accelerator=run.accelerator,
            drawn=drawn,
            dtype=run.dtype,
        )
        share = described(decoder, base.vae, cache)
        about = [
            f"A small decoder for the VAE of `{config.base}`: {share}. `config.toml` starts it again.",
            f"It is used where it lies in the folder of a base: `cp -r {config.out / SMALL_DECODER_NAME} BASE/`.",
        ]
        prepared = Prepared(
            task, header, lambda header: write_card(config.out, header, about), told=[f"{config.out.name}: {share}"]
        )
        return carry_out(run, prepared)


def pruned(config: Config, vae: Any, cache: Cache, splits: Splits, identity: str) -> SmallDecoder:
    """Return the small decoder before it is trained: the channels that matter most for some clips of the cache."""
    settings, clips = config.decoder, splits["train"]
    chosen = [clips[len(clips) * index // MEASURED_ON] for index in range(MEASURED_ON)]
    latents = torch.stack([cache.latents(clip.key)[0] for clip in chosen])
    shape = DecoderShape(settings.block_out_channels, settings.layers_per_block, settings.attention)
    return small_decoder_of(vae, shape, lambda: decode(vae, latents), identity)


def described(decoder: SmallDecoder, vae: Any, cache: Cache) -> str:
    """Return its size, and its arithmetic for a tile beside the VAE's."""
    _, height, width = latent_shape(cache.header.spec)
    small, whole = (decoding_flops(model, height, width) for model in (decoder, vae))
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    return (
        f"{parameters / 1e6:.2f} M parameters, {small / 1e9:.1f} GFLOP a tile, {small / whole:.0%} of the VAE's "
        f"{whole / 1e9:.1f}"
    )

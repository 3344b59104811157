"""A run that trains a VAE's decoder, from its settings to its result."""

from pathlib import Path
from typing import Any

import torch

from sdxl_mel.errors import InputError
from sdxl_mel.files.cache import Cache, latent_shape, open_cache
from sdxl_mel.files.run import REDRAWN_NAME, VAE_FILE_NAME, VAE_NAME
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.tuned_vae import write_vae_file, write_vae_folder
from sdxl_mel.seeding import torch_seeded
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.training.adversary import Adversary
from sdxl_mel.training.batches import TrainingData, diffusion_of
from sdxl_mel.training.cached_pictures import open_pictures
from sdxl_mel.training.decoder_costs import estimate_decoder
from sdxl_mel.training.decoder_settings import Config
from sdxl_mel.training.decoder_task import DecoderTask
from sdxl_mel.training.discriminator import Discriminator
from sdxl_mel.training.distillation import Splits, cached_splits, header_of_distillation, write_card
from sdxl_mel.training.loop import Results
from sdxl_mel.training.lora_task import choose_clips
from sdxl_mel.training.picture_losses import PictureLoss, decibels_by_level
from sdxl_mel.training.redrawing import redrawing_of
from sdxl_mel.training.redrawn_latents import RedrawnLatents
from sdxl_mel.training.run import Prepared, Run, carry_out, start_run


def train_decoder(config: Config) -> Results | None:
    """Train a VAE's decoder, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = cached_splits(cache)
        base = open_base(config.base, ("vae",), vae=config.vae, device=run.device)
        header = header_of_distillation(run, base, cache, {"decoder before": base.identity_of("vae")})
        task = open_task(config, run, base, cache, splits)
        if config.hardware.gradient_checkpointing:
            base.vae.enable_gradient_checkpointing()
        _, height, width = latent_shape(cache.header.spec)
        expected = estimate_decoder(
            base.vae,
            (height, min(width, config.crop // LATENT_FACTOR) if config.crop else width),
            config.loop,
            run.accelerator.num_processes,
            dtype=run.dtype,
            checkpointing=config.hardware.gradient_checkpointing,
            discriminator=task.adversary.discriminator if task.adversary else None,
        )
        made = config.out / VAE_NAME
        about = [
            f"The VAE of `{config.vae or config.base}` with a decoder that was trained on `{config.dataset}`. Its "
            "encoder is the same bit for bit: caches and LoRAs stay valid. `config.toml` starts it again.",
            f'Every command takes `--vae {made}`, diffusers `AutoencoderKL.from_pretrained("{made}")`; ComfyUI and '
            f"A1111 take `{config.out / VAE_FILE_NAME}`.",
        ]
        prepared = Prepared(
            task,
            header,
            lambda header: write_card(config.out, header, about),
            told=[f"{config.out.name}: the decoder of {config.vae or config.base} on {len(splits['train'])} clips"],
            expected=expected if run.main else None,
            less="--crop, or a smaller spectrogram preset",
        )
        return carry_out(run, prepared)


def open_adversary(config: Config, run: Run, base: Base, cache: Cache, splits: Splits) -> Adversary:
    """Return a new discriminator and the latents that the base draws anew; these are drawn here, where they lack.

    Raises InputError where no clip is drawn anew.
    """
    stated, stereo = config.adversarial, cache.header.spec.channels != "grey"
    redrawing = redrawing_of(config.redrawn, base, config.seed)
    redrawn = RedrawnLatents(
        config.redrawn_latents or config.out / REDRAWN_NAME,
        [clip for clip in splits["train"] if redrawing.takes(clip)],
        cache,
        base,
        redrawing,
        run.dtype,
    )
    if not redrawn.clips:
        raise InputError(
            f"redrawn.share: found {config.redrawn.share:g}, which takes none of {len(splits['train'])} clips; give "
            "more"
        )
    with torch_seeded(config.seed, "discriminator weights"):
        discriminator = Discriminator(2 if stereo else 1).to(run.device)
    if not config.dry_run:
        redrawn.make(lambda: open_base(config.base, ("unet",), run.dtype, device=run.device), run.accelerator)
    return Adversary(
        discriminator,
        redrawn,
        weight=stated.weight,
        hold=stated.hold,
        share=stated.share,
        warmup=stated.warmup,
        rate=stated.rate,
        seed=config.seed,
        stereo=stereo,
    )


def open_task(config: Config, run: Run, base: Base, cache: Cache, splits: Splits) -> DecoderTask:
    """Return the decoder to be trained, with a discriminator where one has a weight."""
    adversary = open_adversary(config, run, base, cache, splits) if config.adversarial.weight else None
    if config.hardware.channels_last is not False:
        for model in (base.vae, *([adversary.discriminator] if adversary else [])):
            model.to(memory_format=torch.channels_last)
    spec, loss, stored = cache.header.spec, config.loss, base.source_of("vae").checkpoint(("vae",))
    return DecoderTask(
        base.vae,
        open_pictures(config.dataset, cache, splits),
        TrainingData(cache, splits, diffusion_of(base), config.data),
        PictureLoss(
            decibels=decibels_by_level(spec, loss.dark),
            spectral=loss.spectral,
            logarithms=loss.logarithms,
            level=loss.level,
            sizes=loss.sizes,
            stereo=spec.channels != "grey",
        ),
        noise=config.latent_noise,
        crop=config.crop,
        rate=config.optimizer.rate,
        clips=choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {},
        write_file=lambda path: write_vae_file(path, stored, base.vae),
        write_result=lambda folder: write_result(folder, stored, base.vae),
        accelerator=run.accelerator,
        dtype=run.dtype,
        adversary=adversary,
    )


def write_result(folder: Path, stored: Checkpoint, vae: Any) -> None:
    """Write a VAE as a folder and as one file; `stored` are the tensors that it was opened from."""
    write_vae_folder(folder / VAE_NAME, stored, vae)
    write_vae_file(folder / VAE_FILE_NAME, stored, vae)

"""A run that trains a refiner, from its settings to its result."""

import torch

from sdxl_mel.files.cache import open_cache
from sdxl_mel.files.run import PAIRS_NAME, REFINER_NAME
from sdxl_mel.models.base import open_base
from sdxl_mel.models.refiner import Refiner, new_refiner, refining_flops
from sdxl_mel.models.small_decoder import decoding_flops
from sdxl_mel.seeding import torch_seeded
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.training.cached_pictures import open_pictures
from sdxl_mel.training.distillation import cached_splits, header_of_distillation, write_card
from sdxl_mel.training.loop import Results
from sdxl_mel.training.lora_task import choose_clips
from sdxl_mel.training.redrawing import redrawing_of
from sdxl_mel.training.refiner_pairs import Pairs
from sdxl_mel.training.refiner_settings import Config
from sdxl_mel.training.refiner_task import RefinerTask, measured_spread
from sdxl_mel.training.run import Prepared, carry_out, start_run

MEASURED_ON = 256
"""Clips on which the spread is measured."""


def train_refiner(config: Config) -> Results | None:
    """Train a refiner, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = cached_splits(cache)
        spec = cache.header.spec
        pictures = open_pictures(config.dataset, cache, splits)
        base = open_base(config.base, ("unet", "vae"), run.dtype, vae=config.vae, device=run.device)
        header = header_of_distillation(run, base, cache, {"decoder": base.identity_of("vae")})
        redrawing = redrawing_of(config.redrawn, base, config.seed)
        pairs = Pairs(config.pairs or config.out / PAIRS_NAME, pictures, base, redrawing)
        with torch_seeded(config.seed, "refiner weights"):
            refiner = new_refiner(pairs.channels, **config.refiner.model_dump(), vae=base.identity_of("vae"))
        refiner.to(run.device)
        if config.hardware.channels_last is not False:
            for model in (refiner, base.vae, base.unet):
                model.to(memory_format=torch.channels_last)
        share = described(refiner, base.vae, spec)
        clips = choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {}
        if not config.dry_run:
            pairs.make([*splits["train"], *(clip for kind in clips.values() for clip in kind)], run.accelerator)
            refiner.spread.copy_(measured_spread(pairs, splits["train"][:MEASURED_ON]))
        task = RefinerTask(
            refiner,
            pairs,
            splits["train"],
            starts=config.starts,
            batch=config.batch,
            seed=config.seed,
            rate=config.optimizer.rate,
            clips=clips,
            accelerator=run.accelerator,
            dtype=run.dtype,
        )
        about = [
            f"A refiner for the VAE of `{config.base}`: {share}. `config.toml` starts it again.",
            "`generate --refine` uses it where it lies in the folder of a base: "
            f"`cp -r {config.out / REFINER_NAME} BASE/`.",
        ]
        prepared = Prepared(
            task, header, lambda header: write_card(config.out, header, about), told=[f"{config.out.name}: {share}"]
        )
        return carry_out(run, prepared)


def described(refiner: Refiner, vae: object, spec: MelSpec) -> str:
    """Return its size, and the arithmetic of its steps for a tile beside that of decoding it."""
    step = refining_flops(refiner, spec.n_mels, spec.width)
    whole = decoding_flops(vae, spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR)
    parameters = sum(parameter.numel() for parameter in refiner.parameters())
    steps = refiner.config.draw_steps
    return (
        f"{parameters / 1e6:.2f} M parameters, {step / 1e9:.1f} GFLOP a call for a tile; {steps} steps are "
        f"{2 * steps * step / whole:.0%} of decoding it"
    )

"""What a manifest says of a base with its LoRAs: shapes, noise schedule, and how it asks to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_mel import __version__
from sdxl_mel.diffusion.samplers import ZERO_SNR, Drawing, settle
from sdxl_mel.diffusion.sampling import make_scheduler
from sdxl_mel.errors import InputError
from sdxl_mel.export.graphs import TOKENS
from sdxl_mel.export.manifest import Command, Description, Drawn, Latent, Preview, Scheduler, Text
from sdxl_mel.export.options import SAMPLERS, USUAL, LoraMode, Weights
from sdxl_mel.models.family import pooled_width
from sdxl_mel.models.latent_map import fit
from sdxl_mel.models.lora.scaled import paired_scales
from sdxl_mel.models.scheduler import prediction_of
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.stack import parse_acting


@dataclass(frozen=True)
class Chosen:
    """What is exported, and how: a base, LoRAs and another VAE as `Generator.open` takes them, and what is stated."""

    base: str
    loras: Sequence[str] = ()
    lora_mode: LoraMode = "fused"
    lora_rank: int | None = None
    step_lora: str | None = None
    weights: Weights = "int8"
    drawing: Drawing = Drawing()
    preset: str | None = None
    anchor: str | None = None
    clip_skip: int | None = None
    title: str | None = None
    example: str = ""
    vae: str | None = None


def describe(chosen: Chosen, generator: Generator) -> Description:
    """Return what a manifest says of an open base with its LoRAs. Raises InputError for what a page cannot draw."""
    base, spec, trained = generator.models.base, generator.spec, generator.trained
    config = base.unet.config
    return Description(
        title=chosen.title or _title(chosen),
        made_with=f"sdxl-mel {__version__}",
        spec=spec,
        anchor=trained.anchor,
        command=Command(
            base=_name(chosen.base),
            vae=None if chosen.vae is None else _name(chosen.vae),
            loras=tuple(map(lora_name, chosen.loras)),
        ),
        family=base.family.name,
        latent=_latent(spec),
        text=Text(
            hidden=config.cross_attention_dim,
            pooled=pooled_width(config),
            tokens=TOKENS,
            clip_skip=trained.clip_skip,
            padding=(base.tokenizer.pad_token, base.tokenizer_2.pad_token),
        ),
        scheduler=_scheduler(base.scheduler, chosen.base),
        drawing=asked_drawing(generator, chosen.drawing),
        samplers=SAMPLERS,
        weights=chosen.weights,
        preview=_preview(base.vae, spec),
        example=chosen.example,
    )


def asked_drawing(generator: Generator, stated: Drawing) -> Drawn:
    """Return how the models ask to be drawn, where nothing is stated against it.

    Raises InputError for a sampler that a page has not.
    """
    usual = USUAL.filled(Drawing(guidance=generator.models.base.family.guidance))
    sampling, _ = settle(stated, None, generator.trained.asked, usual)
    if sampling.sampler not in SAMPLERS:
        raise InputError(
            f"these models ask for the sampler {sampling.sampler}, a page draws with {', '.join(SAMPLERS)}; state one "
            "of them with --sampler"
        )
    return Drawn(
        sampler=sampling.sampler, steps=sampling.steps, guidance=sampling.guidance, timesteps=sampling.timesteps
    )


def _scheduler(base_scheduler: Any, name: str) -> Scheduler:
    config = base_scheduler.config
    if config.get(ZERO_SNR):
        raise InputError(f"{name}: has zero terminal SNR, which is not exported; export another base")
    euler, ddim = make_scheduler("euler", base_scheduler), make_scheduler("ddim", base_scheduler)
    return Scheduler(
        prediction=prediction_of(config),
        alphas_cumprod=tuple(euler.alphas_cumprod.tolist()),
        final_alpha_cumprod=float(ddim.final_alpha_cumprod),
        spacing=euler.config.timestep_spacing,
        steps_offset=euler.config.steps_offset,
    )


def _latent(spec: MelSpec) -> Latent:
    return Latent(
        channels=4, scale=LATENT_FACTOR, height=spec.n_mels // LATENT_FACTOR, columns=spec.width // LATENT_FACTOR
    )


def _preview(vae: Any, spec: MelSpec) -> Preview:
    fitted = fit(vae, spec)
    return Preview(weights=fitted.weights.tolist(), spread=fitted.spread)


def _title(chosen: Chosen) -> str:
    """Return the name of the first LoRA, or of the base."""
    named = [path for path, _ in paired_scales([parse_acting(text)[0] for text in chosen.loras])]
    return (named or [Path(chosen.base)])[0].stem


def _name(base: str) -> str:
    """Return a base by a name without places of this machine: that of a file or folder, or its hub id."""
    return Path(base).name if Path(base).exists() else base


def lora_name(text: str) -> str:
    """Return a LoRA as a command line names it, without its folder."""
    file, acting = parse_acting(text)
    ((path, scale),) = paired_scales([file])
    return path.name + (f":{scale:g}" if scale != 1 else "") + (f"#{acting.layers}" if acting.layers else "")

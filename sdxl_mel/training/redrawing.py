"""Latents that a base draws anew of a clip: noised to a level and drawn from there, guided by the clip's caption.

They have the faults of drawn ones. From a level in the middle they still say what the clip says; from 1 they are drawn
whole.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, Known, draw_noise, make_scheduler, sample
from sdxl_mel.files.cache import Cache, CachedExample
from sdxl_mel.models.base import Base
from sdxl_mel.models.vae import scale_latents
from sdxl_mel.seeding import derive_seed, torch_generator
from sdxl_mel.training.distillation import guidance_of
from sdxl_mel.training.redrawn_settings import RedrawnSettings


@dataclass(frozen=True)
class Redrawing:
    """How the latents of a `share` of clips are drawn anew: from a level from `low` to `high` (1 = noise), guided.

    A whole drawing would take `steps` steps of `sampler`; a level in the middle takes its share of them.
    """

    share: float
    low: float
    high: float
    sampler: str
    steps: int
    guidance: float
    seed: int

    def takes(self, example: CachedExample) -> bool:
        """Return whether a clip is one of the share."""
        return float(torch.rand((), generator=torch_generator(self.seed, "redrawn", example.key))) < self.share

    def key(self, example: CachedExample, base: Base) -> tuple[str, ...]:
        """Return what decides the result beside the clip's own latents: whatever the share, a clip has one result."""
        return example.captions[0], base.identity_of("unet"), str(replace(self, share=1.0))


def redrawing_of(settings: RedrawnSettings, base: Base, seed: int) -> Redrawing:
    """Return how a base draws anew; where no guidance is stated, by its own."""
    guidance = guidance_of(settings.guidance, base)
    return Redrawing(settings.share, settings.low, settings.high, settings.sampler, settings.steps, guidance, seed)


def redraw(how: Redrawing, base: Base, cache: Cache, example: CachedExample) -> Tensor:
    """Return the scaled latents of a clip drawn anew, (1, 4, height, width), on the device of the UNet."""
    latents = clean_latents(cache, example).to(base.unet.device)
    place = torch.rand((), generator=torch_generator(how.seed, "redrawn level", example.key))
    seeds = [derive_seed(how.seed, "redrawn noise", example.key)]
    text, unconditional = (_text(base.unet, cache, key) for key in (example.captions[0], cache.header.empty_text))
    sizes = base.family.time_ids(*reversed(cache.header.spec.size))
    denoiser = Denoiser(base.unet, _on(base.unet, sizes), unconditional, Guidance(how.guidance))
    return sample(
        make_scheduler(how.sampler, base.scheduler),
        how.steps,
        draw_noise(seeds, latents.shape[1:], latents.device),
        lambda x, t, _: denoiser.predict(x, t, text),
        seeds=seeds,
        known=Known(latents, (how.low + (how.high - how.low) * place).to(latents.device)),
    )


def clean_latents(cache: Cache, example: CachedExample) -> Tensor:
    """Return the mean of a clip's posterior, scaled, (1, 4, height, width)."""
    return scale_latents(cache.latents(example.key)[0], cache.header.scaling_factor)[None]


def drawing_precision(unet: Any) -> AbstractContextManager[Any]:
    """Return a context in which a UNet draws and a VAE in float32 decodes: in bfloat16 where the UNet is.

    What bfloat16 rounds of a picture is under a level; float16, in which SDXL's VAE overflows, is not used.
    """
    return torch.autocast(unet.device.type, torch.bfloat16, enabled=unet.dtype == torch.bfloat16)


def _text(unet: Any, cache: Cache, key: str) -> TextEmbeddings:
    return TextEmbeddings(*(each[None].to(unet.device, unet.dtype) for each in cache.text(key)))


def _on(model: Any, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(model.device)

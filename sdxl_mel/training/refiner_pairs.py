"""Pairs for a refiner: the tiles of a dataset, and what a VAE makes of their latents, as they are and drawn anew.

Drawn anew is a latent that was noised to a level in the middle and drawn from there, guided by its caption: it has the
faults of drawn ones, and still says what its tile says. Pictures are PNGs, named by what decides them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, Known, draw_noise, make_scheduler, sample
from sdxl_mel.files.cache import CachedExample, key_of
from sdxl_mel.files.spectrogram import Spectrogram, read_tile, write_spectrogram
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import precision_of
from sdxl_mel.models.vae import decode_latents, images_of, scale_latents
from sdxl_mel.progress import progress
from sdxl_mel.seeding import derive_seed, torch_generator
from sdxl_mel.training.cached_pictures import CachedPictures

NAMED_BY = 20
"""Digits of a key that name a file."""


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


class Pairs:
    """The pairs of the clips of a cache: its pictures, and decoded ones that lie in `folder`."""

    def __init__(self, folder: Path, pictures: CachedPictures, base: Base, redrawing: Redrawing) -> None:
        self.folder, self.pictures, self.base, self.redrawing = folder, pictures, base, redrawing
        self.cache, self.spec = pictures.cache, pictures.dataset.spec
        self.channels = 1 if self.spec.channels == "grey" else 3
        self._made_by = (base.identity_of("vae"), precision_of(base.unet.dtype))

    def original(self, example: CachedExample) -> Tensor:
        """Return the picture of a clip, an image (channels, height, width) in -1..1."""
        return self.pictures.image(example)[: self.channels]

    def decoded(self, example: CachedExample) -> Tensor:
        """Return what the VAE makes of its latents, drawn anew or not, in the same shape; `make` has written it."""
        levels = read_tile(self._path(example), self.spec)
        return images_of(levels[None], self.spec.low_at)[0, : self.channels]

    def make(self, examples: Iterable[CachedExample], accelerator: Accelerator) -> None:
        """Write the decoded pictures of clips that are not there yet; several processes share the work."""
        wanted = {self._path(each): each for each in examples}
        missing = [(path, example) for path, example in wanted.items() if not path.exists()]
        accelerator.wait_for_everyone()
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        with progress(len(mine), "decoding pictures", "pictures") as ticker:
            for path, example in mine:
                write_spectrogram(path, Spectrogram(self._decode(example), self.spec))
                ticker.advance()
        accelerator.wait_for_everyone()

    def _path(self, example: CachedExample) -> Path:
        name, about = "decoded", [example.offsets[0], *self._made_by]
        if self.redrawing.takes(example):
            # Whatever the share, a clip that is one of it is drawn anew in the same way.
            how = replace(self.redrawing, share=1.0)
            name, about = "redrawn", [*about, example.captions[0], self.base.identity_of("unet"), str(how)]
        return self.folder / f"{name}-{key_of(name, *about)[:NAMED_BY]}.png"

    @torch.inference_mode()
    def _decode(self, example: CachedExample) -> Levels:
        latents = scale_latents(self.cache.latents(example.key)[0], self.cache.header.scaling_factor)[None]
        latents = latents.to(self.base.vae.device)
        # What bfloat16 rounds of a picture is under a level; float16, in which SDXL's VAE overflows, is not used.
        halved = self.base.unet.dtype == torch.bfloat16
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=halved):
            drawn = self._redraw(example, latents) if self.redrawing.takes(example) else latents
            return decode_latents(self.base.vae, drawn.float(), self.spec)[0]

    def _redraw(self, example: CachedExample, latents: Tensor) -> Tensor:
        how, base = self.redrawing, self.base
        place = torch.rand((), generator=torch_generator(how.seed, "redrawn level", example.key))
        seeds = [derive_seed(how.seed, "redrawn noise", example.key)]
        text, unconditional = (self._text(key) for key in (example.captions[0], self.cache.header.empty_text))
        sizes = base.family.time_ids(*reversed(self.spec.size))
        denoiser = Denoiser(base.unet, _on(base.unet, sizes), unconditional, Guidance(how.guidance))
        return sample(
            make_scheduler(how.sampler, base.scheduler),
            how.steps,
            draw_noise(seeds, latents.shape[1:], latents.device),
            lambda x, t, _: denoiser.predict(x, t, text),
            seeds=seeds,
            known=Known(latents, (how.low + (how.high - how.low) * place).to(latents.device)),
        )

    def _text(self, key: str) -> TextEmbeddings:
        unet = self.base.unet
        return TextEmbeddings(*(each[None].to(unet.device, unet.dtype) for each in self.cache.text(key)))


def _on(model: Any, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(model.device)

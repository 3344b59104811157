"""Pairs for a refiner: the tiles of a dataset, and what a VAE makes of their latents, as they are and drawn anew.

Pictures are PNGs, named by what decides them.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.files.cache import CachedExample, key_of
from sdxl_mel.files.spectrogram import Spectrogram, read_tile, write_spectrogram
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import precision_of
from sdxl_mel.models.vae import decode_latents, images_of
from sdxl_mel.training.cached_pictures import CachedPictures
from sdxl_mel.training.distillation import NAMED_BY, make_missing
from sdxl_mel.training.redrawing import Redrawing, clean_latents, drawing_precision, redraw


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

        def write(path: Path, example: CachedExample) -> None:
            write_spectrogram(path, Spectrogram(self._decode(example), self.spec))

        wanted = {self._path(each): each for each in examples}
        make_missing(wanted, write, accelerator, "decoding pictures", "pictures")

    def _path(self, example: CachedExample) -> Path:
        name, about = "decoded", [example.offsets[0], *self._made_by]
        if self.redrawing.takes(example):
            name, about = "redrawn", [*about, *self.redrawing.key(example, self.base)]
        return self.folder / f"{name}-{key_of(name, *about)[:NAMED_BY]}.png"

    @torch.inference_mode()
    def _decode(self, example: CachedExample) -> Levels:
        base, cache = self.base, self.cache
        with drawing_precision(base.unet):
            redrawn = self.redrawing.takes(example)
            latents = redraw(self.redrawing, base, cache, example) if redrawn else clean_latents(cache, example)
            return decode_latents(base.vae, latents.float(), self.spec)[0]

"""Latents that a base drew anew for a decoder to learn from, and what the decoder made of them before it learnt.

One safetensors file a clip, named by what decides it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.cache import Cache, CachedExample, key_of
from sdxl_mel.files.tensors import TensorFile
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import precision_of
from sdxl_mel.models.vae import decode, unscale_latents
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.training.distillation import NAMED_BY, make_missing
from sdxl_mel.training.redrawing import Redrawing, drawing_precision, redraw


def cells_of(images: Tensor) -> Tensor:
    """Return the mean of the pixels of each latent's cell, (batch, 3, height / 8, width / 8)."""
    return F.avg_pool2d(images, LATENT_FACTOR)


@dataclass(frozen=True)
class RedrawnLatents:
    """The latents of clips that are drawn anew; they lie in `folder`, `base` and its VAE make them in `dtype`."""

    folder: Path
    clips: Sequence[CachedExample]
    cache: Cache
    base: Base
    redrawing: Redrawing
    dtype: torch.dtype

    def read(self, example: CachedExample) -> tuple[Tensor, Tensor]:
        """Return unscaled latents (4, height, width) and the `cells_of` the picture that the VAE made of them."""
        file = TensorFile(self._path(example))
        return file.read("latents"), file.read("cells")

    def make(self, open_unet: Callable[[], Base], accelerator: Accelerator) -> None:
        """Write the files that are not there yet; several processes share the work.

        `open_unet` returns the base with its UNet, which is let go at the end: training has no use for it.
        """
        opened: list[Base] = []

        @torch.inference_mode()
        def write(path: Path, example: CachedExample) -> None:
            if not opened:
                opened.append(open_unet())
            (drawing,) = opened
            with drawing_precision(drawing.unet):
                drawn = redraw(self.redrawing, drawing, self.cache, example).float()
                latents = unscale_latents(drawn, self.cache.header.scaling_factor)
                cells = cells_of(decode(self.base.vae, latents).float())
            content = {"latents": latents[0].cpu().contiguous(), "cells": cells[0].cpu().contiguous()}
            write_bytes(path, save(content))

        make_missing({self._path(each): each for each in self.clips}, write, accelerator, "drawing latents", "clips")

    def _path(self, example: CachedExample) -> Path:
        made_by = (example.offsets[0], self.base.identity_of("vae"), precision_of(self.dtype))
        key = key_of("redrawn latents", *made_by, *self.redrawing.key(example, self.base))
        return self.folder / f"latents-{key[:NAMED_BY]}.safetensors"

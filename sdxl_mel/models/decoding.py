"""Canvases of scaled latents to picture levels and back; a long canvas is decoded in overlapping windows.

Pictures are levels (n_mels, frames, channels) with row 0 = lowest band, as `files.spectrogram` holds them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sdxl_mel.diffusion.views import place_views
from sdxl_mel.models.vae import decode, encode, images_of, values_of_images
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import quantise

Levels = NDArray[np.uint8]


def decode_latents(vae: Any, latents: Tensor, spec: MelSpec) -> list[Levels]:
    """Return the pictures of scaled latents (batch, 4, height, width), one channel each for a mono spec."""
    mean, spread = _statistics(vae, latents)
    images = decode(vae, latents * spread + mean)
    channels = 1 if spec.channels == "grey" else 3
    return [quantise(values) for values in values_of_images(images, channels, spec.low_at)]


def encode_levels(vae: Any, levels: Levels, spec: MelSpec, name: str) -> Tensor:
    """Return the scaled latents (1, 4, height, width) of a picture: the mean of the VAE's posterior."""
    latents = encode(vae, images_of(levels[None], spec.low_at), [name]).mean
    mean, spread = _statistics(vae, latents)
    return (latents - mean) / spread


def decode_windows(vae: Any, latents: Tensor, spec: MelSpec, overlap: int) -> Iterator[tuple[int, int, Levels]]:
    """Yield (first frame, frames shared with the window before, picture) of a canvas (1, 4, height, columns).

    A window is as wide as a tile, which is what the VAE knows; one is in memory at a time.
    """
    width = spec.width // LATENT_FACTOR
    end = 0
    for start in place_views(latents.shape[-1], width, overlap):
        levels = decode_latents(vae, latents[..., start : start + width], spec)[0]
        first = start * LATENT_FACTOR
        yield first, max(0, end - first), levels
        end = first + levels.shape[1]


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the spread of the VAE's own latents; SDXL's has one scaling factor and no mean."""
    mean, std = vae.config.get("latents_mean") or (0.0,), vae.config.get("latents_std") or (1.0,)
    per_channel = [latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std)]
    return per_channel[0], per_channel[1] / vae.config.scaling_factor

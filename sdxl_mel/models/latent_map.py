"""A small picture of latents while they are drawn: a linear map from the channels of a latent to a pixel.

The map is fitted to the VAE at hand, on pictures that it encodes when it is opened; so every base has its own, and
none is stored. A preview costs a product of two small matrices; a decode would cost as much as some steps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.models.vae import encode_levels
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec

MOST_COLUMNS = 1024
"""Of a long piece neighbouring columns are averaged."""
PARTIALS = 40


@dataclass(frozen=True)
class LatentMap:
    """A pixel from a latent: `weights` (5, 3) are of the four channels and a constant; `spread` is that of latents."""

    weights: Float
    spread: float

    def picture(self, latents: Float) -> Image.Image:
        """Return latents (4, height, columns) as a picture of as many pixels, its rows as in the finished one.

        Latents that are still noise, of whatever strength, are brought to the spread of finished ones.
        """
        channels = latents
        if channels.shape[2] > MOST_COLUMNS:
            each = -(-channels.shape[2] // MOST_COLUMNS)
            whole = channels.shape[2] // each * each
            channels = channels[:, :, :whole].reshape(*channels.shape[:2], -1, each).mean(axis=3)
        scale = min(1.0, self.spread / max(float(channels.std()), 1e-6))
        pixels = np.moveaxis(channels * scale, 0, -1) @ self.weights[:4] + self.weights[4]
        return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def fit(vae: Any, spec: MelSpec) -> LatentMap:
    """Return the map of a VAE by least squares, from the latents of a synthetic tile to its pixels' means."""
    levels = synthetic_tile(spec)
    latents = encode_levels(vae, levels, spec, "the tile that previews are fitted on")[0].numpy()
    rows = levels[::-1] if spec.low_at == "bottom" else levels
    height, columns = latents.shape[1:]
    means = rows.reshape(height, LATENT_FACTOR, columns, LATENT_FACTOR, -1).mean(axis=(1, 3)) / 255
    pixels = np.broadcast_to(means, (height, columns, 3)).reshape(-1, 3)
    known = np.column_stack([latents.reshape(4, -1).T, np.ones(height * columns)])
    weights, *_ = np.linalg.lstsq(known, pixels, rcond=None)
    return LatentMap(weights.astype(np.float32), float(latents.std()))


def synthetic_tile(spec: MelSpec) -> Levels:
    """Return a tile like music: partials that begin and fade, over noise that rises and falls; always the same."""
    random = numpy_generator(0, "preview")
    rows, frames = np.arange(spec.n_mels)[:, None, None], np.arange(spec.width)[None, :, None]
    channels = 1 if spec.channels == "grey" else 3
    values: NDArray[np.float64] = 0.15 + 0.15 * np.sin(frames / spec.width * 12 + rows / spec.n_mels * 5)
    values = values + random.normal(0, 0.04, (spec.n_mels, spec.width, channels))
    for _ in range(PARTIALS):
        row, first = random.uniform(0, spec.n_mels), random.uniform(0, spec.width)
        shape = np.exp(-(((rows - row) / random.uniform(1, 4)) ** 2)) * (frames >= first)
        values = values + shape * np.exp(-(frames - first) / random.uniform(20, 120)) * random.uniform(0.2, 1, channels)
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)

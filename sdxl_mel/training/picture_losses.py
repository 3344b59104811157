"""How far decoded pictures are from the true ones, for training a decoder: in level, in texture and on average.

Images are (batch, 3, height, width) in -1..1, as a VAE makes them; losses are (batch,), in levels of 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.sound.laws import DECIBELS_PER_DECADE
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values

LEVELS = 255 / 2
"""Of one unit of an image."""
SMALLEST_MEL = 1e-10
TERMS = ("absolute", "spectral", "level")


def decibels_by_level(spec: MelSpec, most: float) -> Tensor:
    """Return how many decibels a level is at each level, (256,), in units of where it is least; at most `most`.

    The laws are flat where it is dark: an error of a level there is more decibels.
    """
    mel = mel_of_values(dequantise(np.arange(256, dtype=np.uint8)), spec)
    decibels = DECIBELS_PER_DECADE[spec.quantity] * np.log10(np.maximum(mel.astype(np.float64), SMALLEST_MEL))
    slopes = np.abs(np.gradient(decibels))
    return torch.from_numpy(np.minimum(slopes / slopes[slopes > 0].min(), most).astype(np.float32))


@dataclass(frozen=True)
class PictureLoss:
    """The loss of decoded pictures as a weighted sum of three.

    Absolute errors, where it is dark up to as many times heavier as `decibels` says. `spectral` times the differences
    of 2-D spectra, magnitudes and their logarithms, in windows of `sizes` pixels: texture counts where its energy is
    right, though no network can know where each grain of it lies. `level` times what is left of the error on average
    over time, band by band: a network that cannot know keeps to the median, and noise is louder on average. `stereo`
    pictures are compared as mid and side.
    """

    decibels: Tensor
    spectral: float
    logarithms: float
    level: float
    sizes: Sequence[int]
    stereo: bool

    def terms(self, made: Tensor, wanted: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return the weighted terms, whose sum is the loss; `generator` places the windows, None at the corner."""
        levels = wanted.add(1).mul(LEVELS).round().clamp(0, 255)
        weights = self.decibels.to(wanted.device)[levels.long()]
        error = (made - wanted) * weights * LEVELS
        ours, theirs = (signals(images, self.stereo) * LEVELS for images in (made, wanted))
        spectral = [self._spectral(ours, theirs, size, generator) for size in self.sizes]
        return {
            "absolute": error.abs().mean(dim=(1, 2, 3)),
            "spectral": self.spectral * torch.stack(spectral).mean(dim=0),
            "level": self.level * error.mean(dim=3).abs().mean(dim=(1, 2)),
        }

    def _spectral(self, made: Tensor, wanted: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
        first = [0, 0] if generator is None else torch.randint(size // 2, (2,), generator=generator).tolist()
        ours, theirs = (windowed_magnitudes(each[..., first[0] :, first[1] :], size) for each in (made, wanted))
        difference = (ours - theirs).abs() + self.logarithms * (ours.log1p() - theirs.log1p()).abs()
        return difference.flatten(1).mean(dim=1)


def signals(images: Tensor, stereo: bool) -> Tensor:
    """Return mid and side of stereo images (red left, green mid, blue right), or the mean of the three channels."""
    if not stereo:
        return images.mean(dim=1, keepdim=True)
    left, mid, right = images.unbind(dim=1)
    return torch.stack([mid, (left - right) / 2], dim=1)


def windowed_magnitudes(pictures: Tensor, size: int) -> Tensor:
    """Return the magnitudes of the 2-D spectra of windows of `size` pixels, half a window apart.

    Hann windows, scaled such that noise of deviation 1 has the mean square 1.
    """
    window = torch.hann_window(size, device=pictures.device)
    window = window[:, None] * window
    pieces = pictures.float().unfold(2, size, size // 2).unfold(3, size, size // 2) * (window / window.norm())
    spectrum = torch.fft.rfft2(pieces)
    # The root has no slope at zero.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-6).sqrt()

"""Mel values to picture values and to 8-bit levels, and back, by the law of a spec."""

import numpy as np

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.sound.laws import SMALLEST_RATIO
from sdxl_mel.sound.melspec import MelSpec

Picture = Levels | Float
"""8-bit levels, or values in 0..1, (n_mels, frames, channels), row 0 the lowest band."""


def values_of(mel: Float, spec: MelSpec, peak: float | None = None) -> Float:
    """Return mel values as picture values, clipped to 0..1; `mel_of_values` is the inverse inside that range.

    `peak` is the mel value that a law relative to the picture's maximum counts from: None takes the maximum of `mel`,
    1.0 undoes `mel_of_values`.
    """
    if spec.law.relative_to_maximum:
        maximum = float(mel.max(initial=0.0)) if peak is None else peak
        mel = mel / np.float32(max(maximum, SMALLEST_RATIO))
    return np.clip(spec.law.values(mel, spec.quantity), 0.0, 1.0).astype(np.float32)


def mel_of_values(values: Float, spec: MelSpec) -> Float:
    """Return the mel values that picture values in 0..1 stand for."""
    return spec.law.mel(values, spec.quantity).astype(np.float32)


def quantise(values: Float) -> Levels:
    """Return values in 0..1 rounded to 8 bits; `dequantise` is the inverse within half a level."""
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def dequantise(picture: Picture) -> Float:
    """Return 8-bit levels as values in 0..1; what holds values already stays as it is."""
    values = picture.astype(np.float32, copy=False)
    return values / np.float32(255.0) if picture.dtype == np.uint8 else values

"""The value-to-pixel laws: mel values to numbers in 0..1 and to bytes, and back."""

import math

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Float
from sdxl_mel.sound.melspec import DecibelLaw, Law, Log1pLaw, LogLaw, MelSpec, PowerLaw

Bytes = NDArray[np.uint8]


def values_of(mel: Float, spec: MelSpec, peak: float | None = None) -> Float:
    """Return mel values as picture values, clipped to 0..1; `mel_of_values` is the inverse inside that range.

    `peak` is the mel value of 0 dB for a law that is relative to a picture's maximum: None takes the maximum of `mel`,
    1.0 undoes `mel_of_values`.
    """
    return np.clip(_forward(mel, spec.law, spec.quantity, peak), 0.0, 1.0).astype(np.float32)


def mel_of_values(values: Float, spec: MelSpec) -> Float:
    """Return the mel values that picture values in 0..1 stand for."""
    return _backward(values, spec.law, spec.quantity).astype(np.float32)


def quantise(values: Float) -> Bytes:
    """Return values in 0..1 rounded to 8 bits; `dequantise` is the inverse within half a level."""
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def dequantise(levels: Bytes) -> Float:
    """Return 8-bit levels as values in 0..1."""
    return levels.astype(np.float32) / np.float32(255.0)


def _forward(mel: Float, law: Law, quantity: str, peak: float | None) -> Float:
    match law:
        case Log1pLaw():
            return np.log1p(law.mu / law.reference * mel) / math.log1p(law.mu)
        case DecibelLaw():
            loudest = float(mel.max(initial=0.0)) if peak is None else peak
            decibels = _decibels(mel / np.float32(max(loudest, 1e-10)), quantity)
            return (decibels - law.floor_db) / (law.ceiling_db - law.floor_db)
        case PowerLaw():
            value = np.clip(mel / law.reference, 0.0, 1.0) ** law.exponent
            return 1.0 - value if law.inverted else value
        case LogLaw():
            clipped = np.clip(mel, law.floor, law.ceiling)
            return np.log(clipped / law.floor) / math.log(law.ceiling / law.floor)


def _backward(values: Float, law: Law, quantity: str) -> Float:
    match law:
        case Log1pLaw():
            return np.expm1(values * math.log1p(law.mu)) * (law.reference / law.mu)
        case DecibelLaw():
            decibels = values * (law.ceiling_db - law.floor_db) + law.floor_db
            return 10.0 ** (decibels / (20.0 if quantity == "amplitude" else 10.0))
        case PowerLaw():
            value = 1.0 - values if law.inverted else values
            return law.reference * value ** (1.0 / law.exponent)
        case LogLaw():
            return law.floor * (law.ceiling / law.floor) ** values


def _decibels(ratio: Float, quantity: str) -> Float:
    factor = np.float32(20.0 if quantity == "amplitude" else 10.0)
    return np.asarray(factor * np.log10(np.maximum(ratio, np.float32(1e-10))), dtype=np.float32)

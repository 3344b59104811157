"""The two mel scales in use, and the edges of their bands."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

LINEAR_STEP_HZ = 200.0 / 3.0
LOG_START_HZ = 1000.0
LOG_START_MEL = LOG_START_HZ / LINEAR_STEP_HZ
LOG_STEP = np.log(6.4) / 27.0
"""Slaney's Auditory Toolbox (1998): linear up to 1 kHz, then 27 steps to each factor of 6.4."""


def band_edges(n_mels: int, fmin: float, fmax: float, scale: Literal["slaney", "htk"]) -> Float64:
    """Return the n_mels + 2 edges in Hz: band i rises from edge i to i + 1 and falls to i + 2."""
    low, high = hz_to_mel(np.array([fmin, fmax]), scale).tolist()
    return mel_to_hz(np.linspace(low, high, n_mels + 2), scale)


def hz_to_mel(hz: Float64, scale: Literal["slaney", "htk"]) -> Float64:
    """Return frequencies in mel; `mel_to_hz` is the inverse."""
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = LOG_START_MEL + np.log(np.maximum(hz, LOG_START_HZ) / LOG_START_HZ) / LOG_STEP
    return np.where(hz < LOG_START_HZ, hz / LINEAR_STEP_HZ, above)


def mel_to_hz(mel: Float64, scale: Literal["slaney", "htk"]) -> Float64:
    """Return mels in Hz."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = LOG_START_HZ * np.exp(LOG_STEP * (np.maximum(mel, LOG_START_MEL) - LOG_START_MEL))
    return np.where(mel < LOG_START_MEL, mel * LINEAR_STEP_HZ, above)


def empty_bands(edges: Float64, sample_rate: int, n_fft: int) -> int:
    """Return how many bands no bin of the FFT falls into."""
    bins_before = np.ceil(edges * n_fft / sample_rate - 1e-9)  # The first bin at or above an edge.
    first_inside = np.floor(edges[:-2] * n_fft / sample_rate + 1e-9) + 1
    return int(np.sum(first_inside >= bins_before[2:]))

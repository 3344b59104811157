"""Loudness and true peak by ITU-R BS.1770-4; agrees with pyloudnorm, whose filters it uses, and is faster."""

from functools import lru_cache

import numpy as np
import pyloudnorm
import scipy.signal
import soxr
from numpy.typing import NDArray

Float = NDArray[np.float32]

BLOCK_SECONDS = 0.4
BLOCK_OVERLAP = 0.75
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
OVERSAMPLING = 4


def integrated_loudness(samples: Float, sample_rate: int) -> float:
    """Return the gated loudness of (channels, n) samples in LUFS, -inf when everything is under the absolute gate.

    A sound shorter than one block of 400 ms is one block.
    """
    weighted = scipy.signal.sosfilt(_k_weighting(sample_rate), samples.astype(np.float64), axis=-1)
    energy = _block_energies(np.square(weighted).sum(axis=0), sample_rate)
    loud = energy[_lufs(energy) >= ABSOLUTE_GATE_LUFS]
    if loud.size == 0:
        return float("-inf")
    gated = loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE_GATE_LU]
    return float(_lufs(gated.mean()))


def true_peak_db(samples: Float, sample_rate: int) -> float:
    """Return the highest peak between the samples too, in dBTP, from four times the sample rate; -inf for silence."""
    finer = soxr.resample(samples.T, sample_rate, OVERSAMPLING * sample_rate, quality="MQ")
    peak = max(float(np.abs(finer).max(initial=0.0)), float(np.abs(samples).max(initial=0.0)))
    return 20.0 * float(np.log10(peak)) if peak > 0 else float("-inf")


def normalising_gain_db(samples: Float, sample_rate: int, lufs: float, true_peak_dbtp: float | None) -> float:
    """Return the gain that brings samples to `lufs`, or as near as `true_peak_dbtp` lets them; 0 for silence."""
    measured = integrated_loudness(samples, sample_rate)
    if not np.isfinite(measured):
        return 0.0
    gain = lufs - measured
    return gain if true_peak_dbtp is None else min(gain, true_peak_dbtp - true_peak_db(samples, sample_rate))


@lru_cache(maxsize=8)
def _k_weighting(sample_rate: int) -> NDArray[np.float64]:
    filters = pyloudnorm.Meter(sample_rate)._filters.values()
    return np.array([[*stage.b, *stage.a] for stage in filters])


def _block_energies(power: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Return the mean power of blocks of 400 ms, a quarter of a block apart, with pyloudnorm's rounding of borders."""
    step = BLOCK_SECONDS * (1 - BLOCK_OVERLAP)
    seconds = power.size / sample_rate
    count = max(1, int(np.round((seconds - BLOCK_SECONDS) / step)) + 1)
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.array([int(step * block * sample_rate) for block in range(count)])
    last = np.array([int((step * block + BLOCK_SECONDS) * sample_rate) for block in range(count)])
    length = np.minimum(BLOCK_SECONDS * sample_rate, power.size)
    return (total[np.minimum(last, power.size)] - total[np.minimum(first, power.size)]) / length


def _lufs(energy: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    return -0.691 + 10.0 * np.log10(np.maximum(energy, 1e-30))

"""Loudness and true peak by ITU-R BS.1770-4; agrees with pyloudnorm, whose filters it uses, and is faster."""

from functools import lru_cache

import numpy as np
import pyloudnorm
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sdxl_mel.arrays import Float

BLOCK_SECONDS = 0.4
BLOCK_OVERLAP = 0.75
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
OVERSAMPLING = 4
PEAK_BLOCK = 32
PEAK_REACH = 16
"""Samples on each side that a value between samples is made from; BS.1770-4's own example takes 6."""
PEAK_KAISER_BETA = 7.0


def integrated_loudness(samples: Float, sample_rate: int) -> float:
    """Return the gated loudness of (channels, n) samples in LUFS, -inf when everything is under the absolute gate.

    A sound shorter than one block of 400 ms is one block.
    """
    weighted = scipy.signal.lfilter(*_k_weighting(sample_rate), samples.astype(np.float64), axis=-1)
    energy = _block_energies(weighted, sample_rate)
    loud = energy[_lufs(energy) >= ABSOLUTE_GATE_LUFS]
    if loud.size == 0:
        return float("-inf")
    gated = loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE_GATE_LU]
    return float(_lufs(gated.mean()))


def true_peak_db(samples: Float, sample_rate: int) -> float:
    """Return the highest peak between the samples too, in dBTP, from four times the sample rate; -inf for silence."""
    peak = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
    if peak == 0.0:
        return float("-inf")
    padded = np.pad(samples, ((0, 0), (PEAK_BLOCK, PEAK_BLOCK + -samples.shape[-1] % PEAK_BLOCK)))
    import torch  # Only here, so that no help text waits for it; numpy's maximum of short rows is much slower.

    parts = torch.from_numpy(padded).reshape(samples.shape[0], -1, PEAK_BLOCK)
    highest = torch.maximum(parts.amax(dim=-1), -parts.amin(dim=-1)).numpy()
    reached = np.maximum(highest[:, 1:-1], np.maximum(highest[:, :-2], highest[:, 2:]))
    # Between samples nothing is higher than the largest sample in reach times the sum of the weights, so few blocks of
    # a piece of music can hold its peak.
    interpolator = _interpolator()
    candidates = reached * np.abs(interpolator).sum(axis=0).max() > peak
    blocks = sliding_window_view(padded[:, PEAK_BLOCK - PEAK_REACH :], interpolator.shape[0], axis=-1)[:, ::PEAK_BLOCK]
    between = blocks[candidates] @ interpolator
    return 20.0 * float(np.log10(max(peak, float(np.abs(between).max(initial=0.0)))))


def normalising_gain_db(samples: Float, sample_rate: int, lufs: float, true_peak_dbtp: float | None) -> float:
    """Return the gain that brings samples to `lufs`, or as near as `true_peak_dbtp` lets them; 0 for silence."""
    measured = integrated_loudness(samples, sample_rate)
    if not np.isfinite(measured):
        return 0.0
    gain = lufs - measured
    return gain if true_peak_dbtp is None else min(gain, true_peak_dbtp - true_peak_db(samples, sample_rate))


@lru_cache(maxsize=8)
def _k_weighting(sample_rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return numerator and denominator of both stages in one, which takes three quarters of their time."""
    shelf, high_pass = pyloudnorm.Meter(sample_rate)._filters.values()
    return np.convolve(shelf.b, high_pass.b), np.convolve(shelf.a, high_pass.a)


@lru_cache(maxsize=1)
def _interpolator() -> Float:
    """Return the matrix from a block of samples and its reach to the values at the quarters between its samples."""
    quarters = np.arange(1, OVERSAMPLING) / OVERSAMPLING
    wanted = (np.arange(PEAK_BLOCK)[:, None] + quarters).ravel()
    distance = wanted - np.arange(-PEAK_REACH, PEAK_BLOCK + PEAK_REACH)[:, None]
    inside = np.maximum(1.0 - np.square(distance / PEAK_REACH), 0.0)
    taper = np.i0(PEAK_KAISER_BETA * np.sqrt(inside)) / np.i0(PEAK_KAISER_BETA)
    return (np.sinc(distance) * np.where(inside > 0, taper, 0.0)).astype(np.float32)


def _block_energies(weighted: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Return the mean power of blocks of 400 ms, a quarter of a block apart, with pyloudnorm's rounding of borders."""
    step, size = BLOCK_SECONDS * (1 - BLOCK_OVERLAP), weighted.shape[-1]
    count = max(1, int(np.round((size / sample_rate - BLOCK_SECONDS) / step)) + 1)
    first = np.array([int(step * block * sample_rate) for block in range(count)])
    last = np.array([int((step * block + BLOCK_SECONDS) * sample_rate) for block in range(count)])
    borders = np.unique(np.minimum([first, last], size))
    between = [np.vdot(part, part) for part in np.split(weighted, borders, axis=-1)[:-1]]
    total = np.cumsum(between)
    power = [total[np.searchsorted(borders, np.minimum(edge, size))] for edge in (last, first)]
    return (power[0] - power[1]) / np.minimum(BLOCK_SECONDS * sample_rate, size)


def _lufs(energy: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    return -0.691 + 10.0 * np.log10(np.maximum(energy, 1e-30))

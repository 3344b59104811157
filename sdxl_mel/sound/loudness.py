"""Loudness and true peak by ITU-R BS.1770-4; pyloudnorm's numbers to 1e-3 LU, faster."""

from functools import lru_cache

import numpy as np
import scipy.signal
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sdxl_mel.arrays import Float

Coefficients = NDArray[np.float64]

SHELF_HZ, SHELF_Q, SHELF_DB = 1500.0, 1 / 2**0.5, 4.0
HIGH_PASS_HZ, HIGH_PASS_Q = 38.0, 0.5
"""K-weighting, two biquads by the bilinear transform (Bristow-Johnson, Audio EQ Cookbook), which serve any sample rate.
The numbers are pyloudnorm's; at 48 kHz they are within 0.05 dB of the standard's own coefficients up to 20 kHz."""
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
    weighted = scipy.signal.lfilter(*k_weighting(sample_rate), samples.astype(np.float64), axis=-1)
    return _gated(_block_energies(weighted, sample_rate))


def _gated(energy: NDArray[np.float64]) -> float:
    """Return the loudness in LUFS of the blocks that are loud enough to count, -inf where none is."""
    loud = energy[_lufs(energy) >= ABSOLUTE_GATE_LUFS]
    if loud.size == 0:
        return float("-inf")
    gated = loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE_GATE_LU]
    return float(_lufs(gated.mean()))


def true_peak_db(samples: Float, sample_rate: int) -> float:
    """Return the highest peak between the samples too, in dBTP, from four times the sample rate; -inf for silence."""
    padded = np.pad(samples, ((0, 0), (PEAK_BLOCK, PEAK_BLOCK + -samples.shape[-1] % PEAK_BLOCK)))
    # In short rows torch's maximum takes a third of the time of numpy's `reduceat`, a tenth of numpy's maximum.
    highest = torch.from_numpy(np.abs(padded)).unflatten(-1, (-1, PEAK_BLOCK)).amax(-1).numpy()
    peak = float(highest.max())
    if peak == 0.0:
        return float("-inf")
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


class Meter:
    """The numbers of `normalising_gain_db` for a sound that comes in blocks (channels, n), to 1e-3 dB.

    Its loudness is measured in stretches that border on each other; those of the whole overlap or miss by a sample
    where their seconds do not come out even.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self._state = np.zeros((channels, len(k_weighting(sample_rate)[1]) - 1))
        self._weighted = np.zeros((channels, 0))
        self._before = np.zeros((channels, 0), np.float32)
        self._samples, self._step = 0, 0
        self._energies: list[float] = []
        self.peak_db = float("-inf")

    def add(self, samples: Float) -> None:
        """Hear the next block."""
        weighted, self._state = scipy.signal.lfilter(*k_weighting(self.sample_rate), samples, axis=-1, zi=self._state)
        self._weighted = np.concatenate([self._weighted, weighted], axis=-1)
        while (end := self._edge(self._step + 1) - self._edge(self._step)) <= self._weighted.shape[-1]:
            self._energies.append(float(np.vdot(self._weighted[:, :end], self._weighted[:, :end])))
            self._weighted, self._step = self._weighted[:, end:], self._step + 1
        # The peak between two blocks is that of the later one with the end of the earlier before it.
        heard = np.concatenate([self._before, samples], axis=-1)
        self.peak_db = max(self.peak_db, true_peak_db(heard, self.sample_rate))
        self._before, self._samples = heard[:, -2 * PEAK_REACH :], self._samples + samples.shape[-1]

    def gain_db(self, lufs: float, true_peak_dbtp: float | None) -> float:
        """Return the gain that brings what was heard to `lufs`, or as near as `true_peak_dbtp` lets it."""
        whole = round(1 / (1 - BLOCK_OVERLAP))
        energies = np.array([*self._energies, float(np.vdot(self._weighted, self._weighted))])
        blocks = [
            energies[first : first + whole].sum() for first in range(_block_count(self._samples, self.sample_rate))
        ]
        measured = _gated(np.array(blocks) / min(BLOCK_SECONDS * self.sample_rate, max(1, self._samples)))
        if not np.isfinite(measured):
            return 0.0
        gain = lufs - measured
        return gain if true_peak_dbtp is None else min(gain, true_peak_dbtp - self.peak_db)

    def _edge(self, step: int) -> int:
        return int(BLOCK_SECONDS * (1 - BLOCK_OVERLAP) * step * self.sample_rate)


@lru_cache(maxsize=8)
def k_weighting(sample_rate: int) -> tuple[Coefficients, Coefficients]:
    """Return numerator and denominator of both K-weighting filters in one, which takes three quarters of their time."""
    shelf, high_pass = _high_shelf(sample_rate), _high_pass(sample_rate)
    return np.convolve(shelf[0], high_pass[0]), np.convolve(shelf[1], high_pass[1])


def _high_shelf(sample_rate: int) -> tuple[Coefficients, Coefficients]:
    """Return numerator and denominator of the shelf that stands for the head."""
    gain, root = 10 ** (SHELF_DB / 40), np.sqrt(10 ** (SHELF_DB / 40))
    cosine, alpha = _bilinear(SHELF_HZ, SHELF_Q, sample_rate)
    above, below, slope = (gain + 1) + (gain - 1) * cosine, (gain + 1) - (gain - 1) * cosine, 2 * root * alpha
    numerator = gain * np.array([above + slope, -2 * ((gain - 1) + (gain + 1) * cosine), above - slope])
    denominator = np.array([below + slope, 2 * ((gain - 1) - (gain + 1) * cosine), below - slope])
    return numerator / denominator[0], denominator / denominator[0]


def _high_pass(sample_rate: int) -> tuple[Coefficients, Coefficients]:
    """Return numerator and denominator of the high-pass filter."""
    cosine, alpha = _bilinear(HIGH_PASS_HZ, HIGH_PASS_Q, sample_rate)
    numerator = np.array([(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2])
    denominator = np.array([1 + alpha, -2 * cosine, 1 - alpha])
    return numerator / denominator[0], denominator / denominator[0]


def _bilinear(hertz: float, quality: float, sample_rate: int) -> tuple[float, float]:
    """Return cos w0 and alpha = sin w0 / 2 Q of a biquad."""
    angle = 2.0 * np.pi * (hertz / sample_rate)
    return float(np.cos(angle)), float(np.sin(angle) / (2.0 * quality))


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
    """Return the mean power of blocks of 400 ms, a quarter of a block apart, to a sample as pyloudnorm has them."""
    step, size = BLOCK_SECONDS * (1 - BLOCK_OVERLAP), weighted.shape[-1]
    count = _block_count(size, sample_rate)
    first = np.array([int(step * block * sample_rate) for block in range(count)])
    last = np.array([int((step * block + BLOCK_SECONDS) * sample_rate) for block in range(count)])
    borders = np.unique(np.minimum([first, last], size))
    between = [np.vdot(part, part) for part in np.split(weighted, borders, axis=-1)[:-1]]
    total = np.cumsum(between)
    power = [total[np.searchsorted(borders, np.minimum(edge, size))] for edge in (last, first)]
    return (power[0] - power[1]) / np.minimum(BLOCK_SECONDS * sample_rate, size)


def _block_count(samples: int, sample_rate: int) -> int:
    step = BLOCK_SECONDS * (1 - BLOCK_OVERLAP)
    return max(1, int(np.round((samples / sample_rate - BLOCK_SECONDS) / step)) + 1)


def _lufs(energy: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    return -0.691 + 10.0 * np.log10(np.maximum(energy, 1e-30))

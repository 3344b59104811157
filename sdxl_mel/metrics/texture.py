"""How much of a picture's changes in time is left, slow ones and fast ones: energies of modulation frequencies."""

import numpy as np
import scipy.signal

from sdxl_mel.arrays import Float, Vectors

BANDS = 4
SILENCE = 1e-12


def modulation_energy(values: Float, bands: int = BANDS) -> Vectors:
    """Return the energy (bands,) of changes in time of pictures (..., n_mels, frames, channels), slowest first.

    The bands are equal parts of what a picture can hold, 0 to half a change a frame. Each row is taken less its mean
    and under a Hann window: without it, the ends of slow changes would fill the bands of the fast ones.
    """
    rows = np.moveaxis(values.astype(np.float64), -2, -1)
    window = scipy.signal.get_window("hann", rows.shape[-1])
    spectrum = np.abs(np.fft.rfft((rows - rows.mean(-1, keepdims=True)) * window)) ** 2
    sums = spectrum.reshape(-1, spectrum.shape[-1]).sum(0)
    return np.array([part.sum() for part in np.array_split(sums, bands)])


def energy_change_db(target: Vectors, other: Vectors) -> Vectors:
    """Return by how many dB each band of energies (bands,) is stronger than that of `target`.

    It says that there is texture and not that it is right: noise of the right energy would have 0 dB.
    """
    one, two = (np.maximum(each, SILENCE) for each in (target, other))
    return np.asarray(10.0 * np.log10(two / one))

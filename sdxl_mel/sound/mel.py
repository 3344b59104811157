"""STFT and mel filter bank of a MelSpec, in numpy float32.

Frame t is centred on sample t * hop_length of the clip. A clip of `frames` frames needs `margin(spec)` samples of its
neighbours on each side; nothing is padded here.
"""

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from librosa.filters import mel as librosa_bank
from numpy.typing import NDArray

from sdxl_mel.sound.melspec import MelSpec

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]


def margin(spec: MelSpec) -> int:
    """Return how many samples beside a clip its first and last frame touch."""
    return spec.win_length // 2 if spec.centred else (spec.win_length - spec.hop_length) // 2


@lru_cache(maxsize=8)
def window(spec: MelSpec) -> Float:
    """Return the periodic Hann window of `win_length` samples, divided so that `spec.scale` holds."""
    hann = scipy.signal.get_window("hann", spec.win_length, fftbins=True)
    total = hann.sum() / 2 if spec.scale == "sine" else 1.0
    return (hann / total).astype(np.float32)


@lru_cache(maxsize=8)
def filter_bank(spec: MelSpec) -> scipy.sparse.csr_array:
    """Return the mel filter bank, (n_mels, n_bins), sparse; row 0 is the lowest band."""
    dense = librosa_bank(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
        htk=spec.mel_scale == "htk",
        norm=spec.mel_norm,
        dtype=np.float32,
    )
    return scipy.sparse.csr_array(dense)


def stft(samples: Float, spec: MelSpec) -> Complex:
    """Return the STFT of (..., margin + frames * hop_length + margin) samples as (..., n_bins, frames)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, spec.win_length, axis=-1)
    frames = frames[..., :: spec.hop_length, :] * window(spec)
    spectrum = scipy.fft.rfft(frames, n=spec.n_fft, axis=-1)
    return np.swapaxes(spectrum, -1, -2)


def mel_of(magnitude: Float, spec: MelSpec) -> Float:
    """Return the mel spectrogram (n_mels, frames) of STFT magnitudes (n_bins, frames)."""
    source = magnitude if spec.quantity == "amplitude" else magnitude**2
    return np.asarray(filter_bank(spec) @ source, dtype=np.float32)

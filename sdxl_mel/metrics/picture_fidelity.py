"""How far one picture is from another of the same spec: in pixels, in decibels of the mel bands, and as sound."""

import librosa
import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.sound.encoding import cut_clip, mel_spectrogram
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import mel_of_values

FLOOR_DB = 60.0
"""What lies this far under a picture's loudest pixel counts as silence."""


def mean_square(first: Float, second: Float) -> float:
    """Return the mean squared difference of two pictures' values in 0..1."""
    return float(np.mean(np.square(first.astype(np.float64) - second)))


def psnr_db(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio of values in 0..1; infinite for equal pictures."""
    return float("inf") if mean_squared_error == 0 else float(-10.0 * np.log10(mean_squared_error))


def mel_errors_db(target: Float, other: Float, spec: MelSpec) -> Float:
    """Return by how many dB each pixel (n_mels, frames, channels) of `other` is louder than that of `target`.

    Both are cut off FLOOR_DB under the target's loudest pixel, so that differences of silence do not count.
    """
    levels, others = _decibels(target, spec), _decibels(other, spec)
    floor = levels.max() - FLOOR_DB
    return np.maximum(others, floor) - np.maximum(levels, floor)


def mel_convergence_db(target: Float, sound: Float, spec: MelSpec) -> float:
    """Return how well a sound (1 or 2, frames * hop_length) has the mel spectrogram that a picture asks for.

    20 log10(|M - M(sound)| / |M|) over mel amplitudes: the spectral convergence, in the mel domain; lower is better.
    """
    clip = cut_clip(sound, 0, sound.shape[-1] // spec.hop_length, spec)
    wanted, found = (_amplitudes(mel, spec) for mel in (mel_of_values(target, spec), mel_spectrogram(clip, spec)))
    ratio = np.linalg.norm(wanted - found) / max(float(np.linalg.norm(wanted)), 1e-12)
    return float(20.0 * np.log10(max(float(ratio), 1e-12)))


def band_edges_hz(spec: MelSpec, bands: int) -> Float:
    """Return bands + 1 frequencies that part the rows of a picture into equal groups."""
    centres = librosa.mel_frequencies(spec.n_mels + 2, fmin=spec.fmin, fmax=spec.fmax, htk=spec.mel_scale == "htk")
    rows = np.linspace(0, spec.n_mels, bands + 1).round().astype(int)
    return np.concatenate([[spec.fmin], centres[rows[1:-1]], [spec.fmax]]).astype(np.float32)


def _amplitudes(mel: Float, spec: MelSpec) -> Float:
    return mel if spec.quantity == "amplitude" else np.sqrt(mel)


def _decibels(values: Float, spec: MelSpec) -> Float:
    amplitudes = _amplitudes(mel_of_values(np.clip(values, 0.0, 1.0), spec), spec)
    return (20.0 * np.log10(np.maximum(amplitudes, 1e-10))).astype(np.float32)

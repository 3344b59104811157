"""How much of a sound survives a codec: numbers of the signal itself, without models.

Sounds are (channels, n) at one sample rate. Where a metric compares with the original, the estimate is first brought to
the original's RMS level, so that it says nothing of loudness; the level metrics do that.
"""

from dataclasses import dataclass

import librosa
import numpy as np
from librosa.filters import mel as librosa_bank
from librosa.onset import onset_strength

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.sound.encoding import cut_clip, encode_clip
from sdxl_mel.sound.loudness import integrated_loudness, true_peak_db
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise

FFT_SIZES = (512, 2048, 4096)
DYNAMIC_RANGE_DB = 60.0
MEL_BANDS = 128
MEL_FFT = 2048
EDGE_FRAMES = 4
"""Frames at each end of a picture that the missing neighbours of its sound change when it is encoded again."""
SILENCE = 1e-12


@dataclass(frozen=True)
class Fidelity:
    """How near an estimate is to the original; None where a number has no meaning, such as coherence in mono."""

    multi_resolution_sc_db: float
    log_spectral_distance_db: float
    mel_l1_db: float
    onset_correlation: float | None
    correlation_error: float | None
    mono_sum_error_db: float | None
    loudness_lufs: float
    true_peak_dbtp: float


def fidelity(original: Float, estimate: Float, sample_rate: int) -> Fidelity:
    """Return every number that compares two sounds of the same shape."""
    stereo = original.shape[0] == 2
    matched = level_matched(estimate, original)
    return Fidelity(
        multi_resolution_sc_db=multi_resolution_sc_db(original, matched),
        log_spectral_distance_db=log_spectral_distance_db(original, matched),
        mel_l1_db=mel_l1_db(original, matched, sample_rate),
        onset_correlation=onset_correlation(original, matched, sample_rate),
        correlation_error=channel_correlation(estimate) - channel_correlation(original) if stereo else None,
        mono_sum_error_db=mono_sum_level_db(estimate) - mono_sum_level_db(original) if stereo else None,
        loudness_lufs=integrated_loudness(estimate, sample_rate),
        true_peak_dbtp=true_peak_db(estimate, sample_rate),
    )


def level_matched(estimate: Float, original: Float) -> Float:
    """Return `estimate` at the RMS level of `original`."""
    power = float(np.mean(np.square(estimate, dtype=np.float64)))
    wanted = float(np.mean(np.square(original, dtype=np.float64)))
    return estimate * np.float32(np.sqrt(wanted / power)) if power > 0 else estimate


def pixel_rmse(levels: Levels, samples: Float, spec: MelSpec) -> float:
    """Return the RMS difference, of 1.0, between a picture and the picture of its own sound."""
    frames = levels.shape[1]
    again = encode_clip(cut_clip(samples, 0, frames, spec), spec)
    inner = slice(EDGE_FRAMES, frames - EDGE_FRAMES)
    difference = dequantise(levels)[:, inner] - dequantise(again)[:, inner]
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def multi_resolution_sc_db(original: Float, estimate: Float) -> float:
    """Return the mean over FFT_SIZES of |S - E| / |S| between two sounds, in dB."""
    ratios = [_relative_error(_magnitude(original, size), _magnitude(estimate, size)) for size in FFT_SIZES]
    return 20.0 * float(np.log10(max(float(np.mean(ratios)), SILENCE)))


def log_spectral_distance_db(original: Float, estimate: Float) -> float:
    """Return the RMS over frequency of the level difference in dB, mean over time and FFT_SIZES.

    Levels are floored 60 dB below the original's maximum.
    """
    distances = []
    for size in FFT_SIZES:
        one, other = _magnitude(original, size), _magnitude(estimate, size)
        difference = _decibels(one, one.max()) - _decibels(other, one.max())
        distances.append(np.sqrt(np.mean(np.square(difference), axis=-2)).mean())
    return float(np.mean(distances))


def mel_l1_db(original: Float, estimate: Float, sample_rate: int) -> float:
    """Return the mean absolute level difference in dB on 128 mel bands of power, floored 60 dB below the maximum."""
    bank = librosa_bank(sr=sample_rate, n_fft=MEL_FFT, n_mels=MEL_BANDS)
    one, other = (np.sqrt(bank @ np.square(_magnitude(sound, MEL_FFT))) for sound in (original, estimate))
    return float(np.mean(np.abs(_decibels(one, one.max()) - _decibels(other, one.max()))))


def onset_correlation(original: Float, estimate: Float, sample_rate: int) -> float | None:
    """Return the correlation of the onset-strength envelopes of the mono sums; None where one has no onsets."""
    one, other = (
        onset_strength(y=sound.mean(axis=0), sr=sample_rate, hop_length=512) for sound in (original, estimate)
    )
    if one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def channel_correlation(samples: Float) -> float:
    """Return the correlation of two channels; 1 for silence, which has no width."""
    left, right = samples.astype(np.float64)
    scale = float(np.sqrt(np.sum(left**2) * np.sum(right**2)))
    return float(np.sum(left * right)) / scale if scale > 0 else 1.0


def mono_sum_level_db(samples: Float) -> float:
    """Return the power of the mean of the channels in dB: what incoherent channels lose in mono."""
    power = float(np.mean(np.square(samples.mean(axis=0, dtype=np.float64))))
    return 10.0 * float(np.log10(max(power, SILENCE**2)))


def _relative_error(target: Float, estimate: Float) -> float:
    size = float(np.linalg.norm(target))
    return float(np.linalg.norm(target - estimate)) / size if size > 0 else float(np.linalg.norm(estimate) > 0)


def _magnitude(samples: Float, n_fft: int) -> Float:
    return np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=n_fft // 4))


def _decibels(magnitude: Float, reference: float) -> Float:
    floor = 10.0 ** (-DYNAMIC_RANGE_DB / 20.0)
    return 20.0 * np.log10(np.maximum(magnitude / max(float(reference), SILENCE), floor))

"""Sound to picture levels: a track is prepared once (channels, rate, loudness), then its clips are encoded."""

from collections.abc import Iterator

import numpy as np
import scipy.signal
import soxr
import torch

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import InputError
from sdxl_mel.sound import loudness
from sdxl_mel.sound.inversion.stereo import magnitudes
from sdxl_mel.sound.mel import margin, mel_of, reach, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise, values_of

CHUNK_FRAMES = 64
"""Frames encoded at a time: their spectra stay in the cache."""
_HALF = 2.0**-0.5
_LEFT_OF_LAYOUT = {
    3: (1.0, 0.0, _HALF),
    4: (1.0, 0.0, _HALF, 0.0),
    5: (1.0, 0.0, _HALF, _HALF, 0.0),
    6: (1.0, 0.0, _HALF, 0.0, _HALF, 0.0),
    8: (1.0, 0.0, _HALF, 0.0, _HALF, 0.0, _HALF, 0.0),
}
"""What each channel of the WAV order (left, right, centre, LFE, surround pairs) gives to the left one; the right one
is its mirror. ITU-R BS.775-3, table 2: centre and surrounds at -3 dB, no LFE. Four channels are two pairs."""
_PAIRS = {3: ((0, 1),), 4: ((0, 1), (2, 3)), 5: ((0, 1), (3, 4)), 6: ((0, 1), (4, 5)), 8: ((0, 1), (4, 5), (6, 7))}


def prepare_signal(samples: Float, sample_rate: int, spec: MelSpec) -> Float:
    """Return a whole track (channels, n) with the spec's channels, rate, loudness and pre-emphasis, (1 or 2, n').

    Channels follow `downmixed`. One gain for the whole track brings it to `spec.loudness_lufs`, or to a lower loudness
    where the true peak would exceed `spec.true_peak_dbtp`; a silent track stays as it is. Raises InputError for sound
    without samples or with samples that are not finite.
    """
    if samples.ndim != 2 or samples.shape[-1] == 0:
        raise InputError("the sound holds no samples")
    if not np.isfinite(samples).all():
        raise InputError("the sound holds NaN or infinite samples; repair or remove the file")
    signal = resample(downmixed(samples, mono=spec.channels == "grey"), sample_rate, spec.sample_rate)
    if spec.loudness_lufs is not None:
        gain_db = loudness.normalising_gain_db(signal, spec.sample_rate, spec.loudness_lufs, spec.true_peak_dbtp)
        signal = signal * np.float32(10.0 ** (gain_db / 20.0))
    return emphasise(signal, spec.preemphasis)


def downmixed(samples: Float, mono: bool) -> Float:
    """Return (channels, n) samples as (1, n) or (2, n).

    More than two channels of a known layout become two by ITU-R BS.775, of any other layout their mean. Two equal
    channels are one; with `mono` the mean of two.
    """
    count = samples.shape[0]
    if count > 2:
        samples = _to_stereo(samples) if count in _LEFT_OF_LAYOUT else samples.mean(axis=0, keepdims=True)
    if samples.shape[0] == 2 and np.array_equal(samples[0], samples[1]):
        samples = samples[:1]
    if samples.shape[0] == 2 and mono:
        samples = samples.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _to_stereo(samples: Float) -> Float:
    count = samples.shape[0]
    left = np.array(_LEFT_OF_LAYOUT[count])
    right = left.copy()
    for one, other in _PAIRS[count]:
        right[[one, other]] = right[[other, one]]
    return (np.stack([left, right]) / left.sum()).astype(np.float32) @ samples


def resample(signal: Float, sample_rate: int, wanted: int) -> Float:
    """Return (channels, n) samples at another rate, by soxr's high quality."""
    if sample_rate == wanted:
        return signal
    return np.ascontiguousarray(soxr.resample(signal.T, sample_rate, wanted, quality="HQ").T, dtype=np.float32)


def emphasise(samples: Float, coefficient: float) -> Float:
    """Return y[n] = x[n] - coefficient * x[n - 1] of (channels, n) samples; `Deemphasis` is the inverse."""
    if coefficient == 0.0:
        return samples
    return scipy.signal.lfilter([1.0, -coefficient], [1.0], samples, axis=-1).astype(np.float32)


class Deemphasis:
    """x[n] = y[n] + coefficient * x[n - 1], for a signal that comes in pieces (channels, n)."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient
        self.state: Float | None = None

    def __call__(self, samples: Float) -> Float:
        """Return the next piece, filtered."""
        if self.coefficient == 0.0:
            return samples
        state = np.zeros((samples.shape[0], 1), dtype=np.float32) if self.state is None else self.state
        filtered, self.state = scipy.signal.lfilter([1.0], [1.0, -self.coefficient], samples, axis=-1, zi=state)
        return filtered.astype(np.float32)


def cut_clip(signal: Float, start: int, frames: int, spec: MelSpec) -> Float:
    """Return the samples that `encode_clip` needs for `frames` frames from sample `start` of a prepared track.

    The margins beside the clip are the track's own sound, mirrored only where the track ends. Raises InputError when
    the clip itself exceeds the track.
    """
    end, beside = start + frames * spec.hop_length, margin(spec)
    if start < 0 or end > signal.shape[-1]:
        raise InputError(
            f"{frames} frames from sample {start} need {end} samples, the sound has {signal.shape[-1]}; "
            "choose an earlier --start, fewer --seconds or a smaller preset"
        )
    before, after = max(0, beside - start), max(0, end + beside - signal.shape[-1])
    piece = signal[:, max(0, start - beside) : end + beside]
    return np.pad(piece, ((0, 0), (before, after)), mode="reflect") if before or after else piece


def encode_clip(samples: Float, spec: MelSpec) -> Levels:
    """Return the levels (n_mels, frames, 1 or 3) of (1 or 2, margin + frames * hop_length + margin) samples.

    Two channels become left, mid and right, mid being the spectrum of their mean; row 0 is the lowest band.
    """
    if spec.law.relative_to_maximum:
        return quantise(values_of(mel_spectrogram(samples, spec), spec))
    levels = np.empty(_shape(samples, spec), dtype=np.uint8)
    for frames, mel in _mel_chunks(samples, spec):
        levels[..., frames] = quantise(values_of(mel, spec))
    return np.stack(list(levels), axis=-1)


def mel_spectrogram(samples: Float, spec: MelSpec) -> Float:
    """Return the mel values (n_mels, frames, 1 or 3) of the samples that `encode_clip` takes."""
    result = np.empty(_shape(samples, spec), dtype=np.float32)
    for frames, mel in _mel_chunks(samples, spec):
        result[..., frames] = mel
    return np.stack(list(result), axis=-1)


def _shape(samples: Float, spec: MelSpec) -> tuple[int, int, int]:
    """Return the shape (channels, n_mels, frames) of a picture; written with channels first, which is faster."""
    frames = (samples.shape[-1] - 2 * margin(spec)) // spec.hop_length
    return 3 if samples.shape[0] == 2 else 1, spec.n_mels, frames


def _mel_chunks(samples: Float, spec: MelSpec) -> Iterator[tuple[slice, Float]]:
    """Yield a few frames at a time, and their mel values (1 or 3, n_mels, few frames)."""
    channels, _, frames = _shape(samples, spec)
    signal = torch.from_numpy(np.ascontiguousarray(samples))
    for first in range(0, frames, CHUNK_FRAMES):
        last = min(first + CHUNK_FRAMES, frames)
        start = first * spec.hop_length
        spectrum = stft(signal[:, start : start + reach(last - first, spec)], spec)
        yield slice(first, last), mel_of(magnitudes(spectrum, channels), spec).numpy()

"""Sound to picture levels: a track is prepared once (channels, rate, loudness), then its clips are encoded."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import scipy.signal
import soxr
import torch
from numpy.typing import NDArray

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import InputError
from sdxl_mel.sound import loudness
from sdxl_mel.sound.inversion.stereo import magnitudes
from sdxl_mel.sound.mel import margin, mel_of, reach, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise, values_of

Number = TypeVar("Number", bound=np.generic)

CHUNK_FRAMES = 64
"""Frames encoded at a time: their spectra stay in the cache."""
_HALF = 2.0**-0.5
_LAYOUTS = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCFlr", 8: "LRCFlrlr"}
"""By number of channels, in the order of WAV: left, right, centre, LFE, pairs of surrounds. Four are two pairs."""
_LEFT_SHARES = {"L": 1.0, "R": 0.0, "C": _HALF, "F": 0.0, "l": _HALF, "r": 0.0}
"""What a channel gives to the left one (ITU-R BS.775-3, table 2: centre and surrounds at -3 dB, no LFE)."""
_MIRRORED = str.maketrans("LRlr", "RLrl")


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
        samples = _to_stereo(samples) if count in _LAYOUTS else samples.mean(axis=0, keepdims=True)
    if samples.shape[0] == 2 and np.array_equal(samples[0], samples[1]):
        samples = samples[:1]
    if samples.shape[0] == 2 and mono:
        samples = samples.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _to_stereo(samples: Float) -> Float:
    layout = _LAYOUTS[samples.shape[0]]
    shares = np.array([[_LEFT_SHARES[name] for name in names] for names in (layout, layout.translate(_MIRRORED))])
    return (shares / shares[0].sum()).astype(np.float32) @ samples


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
    return _of_mel(samples, spec, lambda mel: quantise(values_of(mel, spec)), np.uint8)


def mel_spectrogram(samples: Float, spec: MelSpec) -> Float:
    """Return the mel values (n_mels, frames, 1 or 3) of the samples that `encode_clip` takes."""
    return _of_mel(samples, spec, lambda mel: mel, np.float32)


def _of_mel(
    samples: Float, spec: MelSpec, picture: Callable[[Float], NDArray[Number]], kind: type[Number]
) -> NDArray[Number]:
    """Return `picture` of the mel values, made of a few frames (1 or 3, n_mels, few frames) at a time."""
    signal = torch.from_numpy(np.ascontiguousarray(samples))
    frames = (samples.shape[-1] - 2 * margin(spec)) // spec.hop_length
    result = np.empty((3 if samples.shape[0] == 2 else 1, spec.n_mels, frames), dtype=kind)  # Faster than frames first.
    for first in range(0, frames, CHUNK_FRAMES):
        last, start = min(first + CHUNK_FRAMES, frames), first * spec.hop_length
        spectrum = stft(signal[:, start : start + reach(last - first, spec)], spec)
        result[..., first:last] = picture(mel_of(magnitudes(spectrum, len(result)), spec).numpy())
    return np.stack(list(result), axis=-1)

"""Where clips are cut from a track, and which are rejected: silence, quiet, clipping."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Float
from sdxl_mel.dataset.settings import Cutting, RejectSettings
from sdxl_mel.errors import InputError
from sdxl_mel.sound.loudness import integrated_loudness
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec

BLOCK_SECONDS = 0.1
FLAT_SAMPLES = 3
FULL_SCALE = 0.98
QUIETEST_LUFS = -70.0


@dataclass(frozen=True)
class Window:
    """A clip of one tile: its first frame, and the sample at which each of its time offsets starts."""

    frame: int
    starts: tuple[int, ...]


def stride_of(cutting: Cutting, spec: MelSpec) -> int:
    """Return the frames from one clip to the next. Raises InputError for a stride under one frame."""
    seconds, frame = cutting.stride_seconds, spec.hop_length / spec.sample_rate
    stride = spec.width if seconds is None else round(seconds * spec.sample_rate / spec.hop_length)
    if stride < 1:
        raise InputError(f"--stride {seconds}: under one frame ({frame:.3f} s)")
    return stride


def needed_seconds(spec: MelSpec, cutting: Cutting) -> float:
    """Return the length of the shortest track that has a clip."""
    skipped = 2 * _first_frame(spec, cutting) * spec.hop_length
    return skipped / spec.sample_rate + _clip_samples(spec, cutting) / spec.sample_rate


def windows(samples: int, spec: MelSpec, cutting: Cutting) -> list[Window]:
    """Return the clips of a track of `samples`; every frame of them has its true neighbours on both sides.

    Of more than `cutting.count` clips that many are kept, evenly spread. Time offsets are fractions of one latent.
    """
    first = _first_frame(spec, cutting)
    last = (samples - first * spec.hop_length - _clip_samples(spec, cutting)) // spec.hop_length
    frames = range(first, last + 1, stride_of(cutting, spec))
    if cutting.count is not None and len(frames) > cutting.count:
        frames = [frames[int(index)] for index in np.linspace(0, len(frames) - 1, cutting.count).round()]  # type: ignore[assignment]
    latent = LATENT_FACTOR * spec.hop_length
    shifts = [round(latent * k / cutting.offsets) for k in range(cutting.offsets)]
    return [Window(frame, tuple(frame * spec.hop_length + shift for shift in shifts)) for frame in frames]


def reject_reason(clip: Float, loudness: float, spec: MelSpec, clipped: int, settings: RejectSettings) -> str:
    """Return why a prepared clip (channels, n) with its loudness and clipped peaks is rejected, "" when it is good."""
    silent = silent_share(clip, spec.sample_rate, settings.silence_dbfs)
    if silent > settings.silent_share:
        return f"silence: {silent:.0%} of it is under {settings.silence_dbfs:.0f} dBFS"
    if loudness < settings.quiet_lufs:
        return f"too quiet: {loudness:.0f} LUFS"
    rate = clipped / (clip.shape[-1] / spec.sample_rate)
    if rate > settings.clipped_per_second:
        return f"clipping: {rate:.0f} clipped peaks a second"
    return ""


def clip_loudness(clip: Float, sample_rate: int) -> float:
    """Return the loudness of a clip in LUFS, at least QUIETEST_LUFS."""
    return round(max(integrated_loudness(clip, sample_rate), QUIETEST_LUFS), 2)


def silent_share(clip: Float, sample_rate: int, silence_dbfs: float) -> float:
    """Return the share of blocks of a tenth of a second whose RMS over all channels is under a level."""
    block = round(BLOCK_SECONDS * sample_rate)
    whole = clip[:, : clip.shape[-1] // block * block]
    power = np.square(whole.reshape(whole.shape[0], -1, block)).mean(axis=(0, 2))
    return float((power < 10.0 ** (silence_dbfs / 10.0)).mean())


def clipped_seconds(samples: Float, sample_rate: int) -> NDArray[np.float64]:
    """Return when a source (channels, n) is clipped: runs of equal samples at its highest level near full scale."""
    times = [start / sample_rate for channel in samples for start in _flat_tops(channel)]
    return np.sort(np.array(times, dtype=np.float64))


def _flat_tops(channel: Float) -> Iterator[int]:
    peak = float(np.abs(channel).max(initial=0.0))
    if peak < FULL_SCALE:
        return
    at = np.flatnonzero(np.abs(channel) >= peak * (1.0 - 1e-4))
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    yield from (int(run[0]) for run in runs if run.size >= FLAT_SAMPLES)


def _first_frame(spec: MelSpec, cutting: Cutting) -> int:
    """Return the first frame that is neither skipped nor without neighbours."""
    samples = max(cutting.skip_seconds * spec.sample_rate, margin(spec))
    return -(-int(np.ceil(samples)) // spec.hop_length)


def _clip_samples(spec: MelSpec, cutting: Cutting) -> int:
    """Return the samples that a clip and its time offsets cover."""
    spare = LATENT_FACTOR if cutting.offsets > 1 else 0
    return (spec.width + spare) * spec.hop_length

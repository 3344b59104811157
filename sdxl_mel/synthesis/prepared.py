"""A whole recording as the models hear it: at the spec's rate and loudness, kept on disk, read by stretches."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soxr

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import InputError
from sdxl_mel.files.recording import Recording
from sdxl_mel.sound.encoding import downmixed, encode_clip
from sdxl_mel.sound.loudness import Meter
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import MelSpec

SAMPLE_BYTES = 4
PICTURE_FRAMES = 1024
"""Frames encoded at a time."""


class Scratch:
    """Samples (channels, n) in a temporary file, appended and read by stretches; silence before and after."""

    def __init__(self, channels: int) -> None:
        self.channels, self.samples = channels, 0
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this does

    def append(self, block: Float) -> None:
        """Add samples at the end."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(block.T, dtype=np.float32).tobytes())
        self.samples += block.shape[-1]

    def read(self, start: int, stop: int) -> Float:
        """Return the samples (channels, stop - start) from `start` on."""
        first, last = min(max(start, 0), self.samples), min(max(stop, 0), self.samples)
        self._file.seek(first * self.channels * SAMPLE_BYTES)
        content = self._file.read((last - first) * self.channels * SAMPLE_BYTES)
        found = np.frombuffer(content, np.float32).reshape(-1, self.channels).T
        before = min(max(-start, 0), stop - start)
        return np.pad(found, ((0, 0), (before, stop - start - before - found.shape[1])))


@dataclass(frozen=True)
class Prepared:
    """A recording at the spec's rate, of one or two channels; times `gain` it has the loudness of training clips.

    `original` is the number of samples of the file itself.
    """

    scratch: Scratch
    gain: float
    original: int

    @property
    def samples(self) -> int:
        """Return how many samples there are."""
        return self.scratch.samples

    def read(self, start: int, stop: int) -> Float:
        """Return prepared samples (channels, stop - start); silence beyond the ends."""
        return self.scratch.read(start, stop) * np.float32(self.gain)


def stereo_at_most(blocks: Iterable[Float], mono: bool) -> Iterator[Float]:
    """Yield blocks of one or two channels; more are mixed down as `downmixed` does, two with `mono` to their mean."""
    for block in blocks:
        mixed = downmixed(block, mono) if block.shape[0] > 2 or mono else block
        # Of two equal channels `downmixed` keeps one, which here would differ from block to block.
        yield np.repeat(mixed, 2, axis=0) if block.shape[0] > 2 and len(mixed) == 1 and not mono else mixed


def resampled(blocks: Iterable[Float], rate: int, wanted: int, channels: int) -> Iterator[Float]:
    """Yield blocks at another rate, by soxr's high quality."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32", quality="HQ")
    for block in blocks:
        yield np.ascontiguousarray(stream.resample_chunk(np.ascontiguousarray(block.T)).T)
    yield np.ascontiguousarray(stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T)


def prepare_recording(recording: Recording, spec: MelSpec) -> Prepared:
    """Return a recording as `encoding.prepare_signal` prepares a track. Raises InputError for one without samples."""
    if spec.preemphasis:
        raise InputError("editing a sound needs a format without pre-emphasis; ours have none")
    mono = spec.channels == "grey" or recording.channels == 1
    scratch, meter = Scratch(1 if mono else 2), Meter(spec.sample_rate, 1 if mono else 2)
    original = 0

    def counted() -> Iterator[Float]:
        nonlocal original
        for block in recording.blocks():
            original += block.shape[-1]
            yield block

    blocks = stereo_at_most(counted(), mono)
    for block in resampled(blocks, recording.rate, spec.sample_rate, scratch.channels):
        scratch.append(block)
        meter.add(block)
    if scratch.samples == 0:
        raise InputError(f"{recording.path}: holds no samples")
    gain = 0.0 if spec.loudness_lufs is None else meter.gain_db(spec.loudness_lufs, spec.true_peak_dbtp)
    return Prepared(scratch, 10.0 ** (gain / 20.0), original)


def encode_prepared(prepared: Prepared, first: int, frames: int, spec: MelSpec) -> Levels:
    """Return the levels (n_mels, frames, 1 or 3) from frame `first` on, which may lie before the sound's start."""
    beside, hop = margin(spec), spec.hop_length
    channels = 3 if prepared.scratch.channels == 2 else 1
    levels: Levels = np.empty((spec.n_mels, frames, channels), np.uint8)
    for start in range(0, frames, PICTURE_FRAMES):
        stop = min(start + PICTURE_FRAMES, frames)
        samples = prepared.read((first + start) * hop - beside, (first + stop) * hop + beside)
        levels[:, start:stop] = encode_clip(samples, spec)
    return levels

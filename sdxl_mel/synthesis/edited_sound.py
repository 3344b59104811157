"""The sound of an edited recording: the file's own samples, and what was drawn anew laid over them.

Drawn sound is retrieved in phase with the samples around it, brought to the file's level, rate and channels, and faded
over in the feather of its region alone. Of a region that is a band only that band is taken (by an STFT of an eighth of
a second); of one that is as high as the picture everything, also what lies above it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.files.recording import BLOCK_SAMPLES
from sdxl_mel.sound.inversion.blockwise import KNOWN_FRAMES
from sdxl_mel.sound.inversion.methods import invert_between, invert_blocks
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.synthesis.editing import Edit, Edited, edit_source, open_source
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.prepared import Scratch, resampled, stereo_at_most
from sdxl_mel.synthesis.regions import Patch
from sdxl_mel.synthesis.settings import Method

Points = NDArray[np.float64]
Read = Callable[[int, int], Float]
"""(first sample, last sample) -> samples (channels, n); silence beyond the ends."""
WINDOWS_PER_SECOND = 8


class EditedRecording(NamedTuple):
    """An edited recording: samples (channels, n) at its `rate`, its picture, and how much of each pixel is drawn anew.

    `levels` are (n_mels, frames, 1 or 3), `mask` is (n_mels, frames) from 0 to 255; row 0 is the lowest band.
    """

    samples: Float
    rate: int
    levels: Levels
    mask: Levels


def edit_recording(
    generator: Generator,
    path: Path,
    what: Edit,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    method: Method = "best",
) -> EditedRecording:
    """Return the sound or picture at `path` edited, as `sdxl-mel edit` does; `steps` and `guidance` None as models ask.

    Raises InputError for regions that overlap, lie beyond the end or are smaller than a latent cell.
    """
    sampling = generator.settle(Drawing(steps=steps, guidance=guidance)).sampling
    edited = edit_source(generator, open_source(path, generator.spec), what, sampling=sampling, seed=seed)
    samples = np.concatenate(list(sound_blocks(edited, method, seed)), axis=-1)
    return EditedRecording(samples, format_of(edited)[0], edited.levels, edited.mask())


def band_window(rate: int) -> int:
    """Return how many samples the window has that parts a band from the others: about an eighth of a second."""
    return 1 << round(math.log2(rate / WINDOWS_PER_SECOND))


def format_of(edited: Edited) -> tuple[int, int]:
    """Return rate and channels of the result: those of the file, more than two channels mixed down to two."""
    recording = edited.source.recording
    if recording is None:
        return edited.source.spec.sample_rate, 1 if edited.canvas.levels.shape[-1] == 1 else 2
    return recording.rate, min(recording.channels, 2)


def sound_blocks(edited: Edited, method: Method, seed: int = 0) -> Iterator[Float]:
    """Yield the sound of the result (channels, n) in blocks: from the picture, or the file's own beside passages."""
    if edited.whole or edited.source.prepared is None:
        return _whole(edited, method, seed)
    return _patched(edited, method, seed)


def _whole(edited: Edited, method: Method, seed: int) -> Iterator[Float]:
    source, spec = edited.source, edited.source.spec
    rate, channels = format_of(edited)
    gain = 1.0 if source.prepared is None else source.prepared.gain
    drawn = invert_blocks(edited.levels, spec, method, seed, edited.canvas.loop)
    blocks = (_in_channels(block / np.float32(gain), channels) for block in drawn)
    left = _length(edited, rate)
    for block in resampled(blocks, spec.sample_rate, rate, channels):
        yield block[:, :left]
        left -= min(left, block.shape[-1])


def _length(edited: Edited, rate: int) -> int:
    """Return how many samples the result has: as many as the file and what was added to it."""
    spec, plan, prepared = edited.source.spec, edited.plan, edited.source.prepared
    if prepared is not None and plan.frames == plan.shift * LATENT_FACTOR + edited.source.frames:
        return prepared.original + _added_before(edited, rate)
    return round(plan.frames * spec.hop_length * rate / spec.sample_rate)


def _added_before(edited: Edited, rate: int) -> int:
    spec = edited.source.spec
    return round(edited.plan.shift * LATENT_FACTOR * spec.hop_length * rate / spec.sample_rate)


def _patched(edited: Edited, method: Method, seed: int) -> Iterator[Float]:
    assert edited.source.recording is not None
    rate, channels = format_of(edited)
    original = Scratch(channels)
    for block in stereo_at_most(edited.source.recording.blocks(), mono=False):
        original.append(block)
    length, before = _length(edited, rate), _added_before(edited, rate)
    read: Read = lambda start, stop: original.read(start - before, stop - before)  # noqa: E731
    if edited.canvas.loop:
        read = _circular(read, length)
    changes = [
        _change(edited, stretch, passages, read, method=method, seed=seed) for stretch, passages in stretches(edited)
    ]
    for start in range(0, length, BLOCK_SAMPLES):
        stop = min(start + BLOCK_SAMPLES, length)
        block = read(start, stop)
        for change in changes:
            for turn in (-length, 0, length) if edited.canvas.loop else (0,):
                first = change.first + turn
                low, high = max(start, first), min(stop, first + change.difference.samples)
                if low < high:
                    block[:, low - start : high - start] += change.read(low - first, high - first)
        yield block


def stretches(edited: Edited) -> list[tuple[tuple[int, int], list[Patch]]]:
    """Return (first frame, frame after the last) of every stretch that changes, and the passages there."""
    found: list[tuple[tuple[int, int], list[Patch]]] = []
    frames = edited.canvas.levels.shape[1]
    for patch in sorted((passage.patch for passage in edited.plan.passages), key=lambda patch: patch.first):
        first, after = ((patch.first - patch.feather) * LATENT_FACTOR, (patch.after + patch.feather) * LATENT_FACTOR)
        if not edited.canvas.loop:
            first, after = max(first, 0), min(after, frames)
        if found and first < found[-1][0][1] + 2 * KNOWN_FRAMES:
            (start, end), passages = found[-1]
            found[-1] = (start, max(end, after)), [*passages, patch]
        else:
            found.append(((first, after), [patch]))
    return found


@dataclass(frozen=True)
class Change:
    """What is added to the file's own samples from the result's sample `first` on: a difference, faded to its passages.

    The difference is kept on disk, at the file's `rate`; it begins where the models hear sample `heard` of the canvas.
    """

    first: int
    heard: int
    difference: Scratch
    passages: Sequence[Patch]
    spec: MelSpec
    rate: int

    def read(self, start: int, stop: int) -> Float:
        """Return the samples (channels, stop - start) that are added from sample `start` of the change on."""
        moments = self._moments(np.arange(start, stop))
        if all(patch.every_row for patch in self.passages):
            everywhere = np.max([_across(patch, moments) for patch in self.passages], axis=0)
            return everywhere * self.difference.read(start, stop)
        reach = band_window(self.rate) / 2 / self.rate * self.spec.sample_rate / self.spec.hop_length
        near = np.max(
            [_outside(patch, moments) <= patch.feather * LATENT_FACTOR + reach for patch in self.passages], axis=0
        )
        return (self._in_bands(start, stop) * near).astype(np.float32)

    def _moments(self, samples: NDArray[np.int64]) -> Points:
        """Return the places of samples in frames."""
        return (self.heard + samples * (self.spec.sample_rate / self.rate)) / self.spec.hop_length

    def _in_bands(self, start: int, stop: int) -> Points:
        """Return the difference in the bands of the passages."""
        size = band_window(self.rate)
        hop = size // 4
        transform = scipy.signal.ShortTimeFFT(scipy.signal.get_window("hann", size), hop, self.rate)
        # A window further on both sides, from where one of the whole difference begins: its blocks are then one sound.
        origin = (start - size) // hop * hop
        piece = self.difference.read(origin, stop + size)
        count = piece.shape[-1]
        middles = np.clip(origin + hop * np.arange(*transform.p_range(count)), 0, self.difference.samples - 1)
        moments = self._moments(middles)
        weights = np.max(
            [
                np.minimum(_up(patch, transform.f, self.spec)[:, None], _across(patch, moments))
                for patch in self.passages
            ],
            axis=0,
        )
        changed: Points = transform.istft(transform.stft(piece, axis=-1) * weights, k1=count)
        return changed[:, start - origin : stop - origin]


def _change(
    edited: Edited, stretch: tuple[int, int], passages: Sequence[Patch], read: Read, *, method: Method, seed: int
) -> Change:
    """Return what a stretch changes in the file's samples; `read` returns those at places of the result."""
    spec, prepared = edited.source.spec, edited.source.prepared
    assert prepared is not None
    (first, after), (rate, channels) = stretch, format_of(edited)
    shift = edited.plan.shift * LATENT_FACTOR * spec.hop_length
    heard: Read = lambda start, stop: prepared.read(start - shift, stop - shift)  # noqa: E731
    if edited.canvas.loop:
        heard = _circular(heard, edited.canvas.levels.shape[1] * spec.hop_length)
    origin = (first - KNOWN_FRAMES) * spec.hop_length
    drawn = invert_between(
        edited.canvas.read(first - KNOWN_FRAMES, after - first + 2 * KNOWN_FRAMES),
        spec,
        lambda start, stop: heard(origin + start, origin + stop),
        method,
        seed,
        begins=first == 0 and not edited.canvas.loop,
        ends=after == edited.canvas.levels.shape[1] and not edited.canvas.loop,
    )
    # The stretch and its surroundings begin at a sample that both rates have.
    unit, beside = spec.sample_rate // math.gcd(spec.sample_rate, rate), 2 * band_window(spec.sample_rate)
    begin, end = first * spec.hop_length, after * spec.hop_length
    start = shift + (begin - beside - shift) // unit * unit
    beginning = next(drawn)
    around = chain([heard(start, begin), beginning], drawn, [heard(end, end + beside)])
    level, kept = np.float32(1 / prepared.gain), beginning.shape[0]
    place = (start - shift) * rate // spec.sample_rate + _added_before(edited, rate)
    difference = Scratch(channels)
    sound = (_in_channels(block, kept) * level for block in around)
    for block in resampled(sound, spec.sample_rate, rate, kept):
        there = place + difference.samples
        difference.append(_in_channels(block, channels) - read(there, there + block.shape[-1]))
    return Change(place, start, difference, passages, spec, rate)


def _outside(patch: Patch, moments: Points) -> Points:
    """Return how far moments, in frames, lie outside of a passage."""
    first, after = patch.first * LATENT_FACTOR, patch.after * LATENT_FACTOR
    return np.maximum(np.maximum(first - moments, moments - after), 0.0)


def _across(patch: Patch, moments: Points) -> Float:
    """Return the weight of a passage at moments in frames: 1 inside, falling to 0 over its feather."""
    return _fallen(_outside(patch, moments) / (patch.feather * LATENT_FACTOR))


def _up(patch: Patch, frequencies: Points, spec: MelSpec) -> Float:
    """Return the weight of a passage at frequencies in Hz."""
    low_out, low, high, high_out = patch.band(spec)
    below = np.zeros_like(frequencies) if patch.bottom == 0 else (low - frequencies) / max(low - low_out, 1e-9)
    above = np.zeros_like(frequencies) if patch.top == patch.rows else (frequencies - high) / max(high_out - high, 1e-9)
    return _fallen(np.maximum(np.maximum(below, above), 0.0))


def _fallen(distance: Points) -> Float:
    """Return half a period of a raised cosine, from 1 at distance 0 to 0 at 1 and beyond."""
    return (0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1.0))).astype(np.float32)


def _circular(read: Read, length: int) -> Read:
    """Return a reader that goes on at the start after `length` samples, and at the end before the first."""

    def read_on(start: int, stop: int) -> Float:
        pieces = []
        while start < stop:
            at = start % length
            count = min(stop - start, length - at)
            pieces.append(read(at, at + count))
            start += count
        return np.concatenate(pieces, axis=-1)

    return read_on


def _in_channels(sound: Float, channels: int) -> Float:
    """Return one channel in each of two, or two as they are or as their mean."""
    if sound.shape[0] == channels:
        return sound
    return np.repeat(sound, channels, axis=0) if sound.shape[0] == 1 else sound.mean(axis=0, keepdims=True)

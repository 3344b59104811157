"""Inversion of a picture in overlapping blocks, so that memory does not grow with its length.

A block begins with frames whose sound was given out already. Inside its phase retrieval that sound is held fixed, and
fades into what the previous block had thought would follow: the pieces are one signal, without joints.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdxl_mel.execution import piecewise
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.inversion.mel_to_linear import linear_of_mel, refined
from sdxl_mel.sound.inversion.phase_init import advancing_phases, first_phases, partial_frequencies
from sdxl_mel.sound.inversion.projections import Anchor, Consistency, Refresh, fast_griffin_lim, relaxed_reflections
from sdxl_mel.sound.inversion.stereo import leading_channel, magnitudes, spread, with_magnitude
from sdxl_mel.sound.mel import magnitude, margin, reach, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values

Picture = NDArray[Any]
"""Levels of uint8 or values of float32: of a long picture only a block at a time becomes float."""

BLOCK_FRAMES = 1024
KNOWN_FRAMES = 16
"""Frames of sound already given out that the next block must agree with."""
AHEAD_FRAMES = 16
"""Frames that a block works on but leaves to the next, which knows what follows them."""


@dataclass(frozen=True)
class Iterations:
    """Numbers of iterations.

    `demel`: mel to linear. On the coarse grid, whose FFT is no longer than the window: `reflections` of RAAR on one
    channel (of a stereo picture the mid, mostly), `coupled` of fast Griffin-Lim on left, mid and right together.
    `final`: fast Griffin-Lim on the spec's own grid, the targets following the sound.
    """

    demel: int
    reflections: int
    coupled: int
    final: int


def retrieved_blocks(
    picture: Picture, spec: MelSpec, effort: Iterations, seed: int, *, loop: bool, device: str
) -> Iterator[Tensor]:
    """Yield the sound (1 or 2, samples) of 8-bit levels or values (n_mels, frames, 1 or 3), piece by piece."""
    frames = picture.shape[1]
    if frames <= BLOCK_FRAMES:
        sound = _retrieved(picture, spec, effort, torch_generator(seed, "phase", 0), device, loop=loop)
        yield sound[:, margin(spec) : margin(spec) + frames * spec.hop_length]
        return
    order = np.arange(-AHEAD_FRAMES, frames + KNOWN_FRAMES) % frames if loop else np.arange(frames)
    given = AHEAD_FRAMES if loop else 0
    last = given + frames
    start, block = 0, 0
    opening: Tensor | None = None
    previous: Tensor | None = None
    while given < last:
        stop = min(start + BLOCK_FRAMES, order.size)
        anchor = None if previous is None else _continued(previous, given - start, stop - start, spec)
        if anchor is not None and opening is not None and stop == order.size:
            anchor = _closed(anchor, opening, last - start, spec)
        generator = torch_generator(seed, "phase", block)
        sound = _retrieved(picture[:, order[start:stop]], spec, effort, generator, device, anchor=anchor)
        opening = sound[:, : (2 * AHEAD_FRAMES + KNOWN_FRAMES) * spec.hop_length] if loop and block == 0 else opening
        end = last if stop == order.size else stop - AHEAD_FRAMES
        origin = margin(spec) - start * spec.hop_length
        yield sound[:, origin + given * spec.hop_length : origin + end * spec.hop_length]
        previous = sound[:, (end - KNOWN_FRAMES - start) * spec.hop_length :]
        start, given, block = end - KNOWN_FRAMES, end, block + 1


def _retrieved(
    picture: Picture,
    spec: MelSpec,
    effort: Iterations,
    generator: torch.Generator,
    device: str,
    *,
    anchor: Anchor | None = None,
    loop: bool = False,
) -> Tensor:
    """Return the sound (1 or 2, reach) of one block; `generator` draws the phases that it starts from."""
    values = dequantise(picture) if picture.dtype == np.uint8 else picture
    mel = torch.from_numpy(mel_of_values(values, spec)).to(device).permute(2, 0, 1).contiguous()
    frames = mel.shape[-1]
    with piecewise() as workers:
        target = linear_of_mel(mel, spec, effort.demel, workers)
        lead = leading_channel(target)
        known = None if anchor is None else anchor.left() if lead == 0 else anchor.mid()
        coarse = coarse_grid(spec)
        coarse_target = target[..., :: spec.n_fft // coarse.n_fft].contiguous()
        start = _started(target[lead], spec, known, generator, workers)
        consistent = Consistency(coarse, frames, loop, known, workers)
        sound = relaxed_reflections(start, coarse_target[lead : lead + 1], consistent, effort.reflections)
        if mel.shape[0] == 3:
            consistent = Consistency(coarse, frames, loop, anchor, workers)
            sound = consistent.sound_of(spread(stft(sound, coarse), coarse_target))
            sound = fast_griffin_lim(sound, coarse_target, consistent, effort.coupled)
        consistent = Consistency(spec, frames, loop, anchor, workers)
        return fast_griffin_lim(sound, target, consistent, effort.final, _followed(mel, spec))


def coarse_grid(spec: MelSpec) -> MelSpec:
    """Return the spec with an FFT no longer than its window needs: every k-th bin of the full one, at 1 / k the cost.

    Zero-padding makes rows of the picture that have a bin each, but no new facts for phase retrieval: RAAR on the
    coarse grid ends as near, so twice as many iterations fit in the same time.
    """
    share = spec.n_fft // spec.win_length
    return spec.model_copy(update={"n_fft": spec.n_fft // share}) if spec.n_fft % (2 * share) == 0 else spec


def _started(
    target: Tensor, spec: MelSpec, anchor: Anchor | None, generator: torch.Generator, workers: Executor | None
) -> Tensor:
    """Return a first spectrum (1, frames, coarse bins) for the targets (frames, n_bins) of one channel.

    Its phases are those of the known sound where there is any, and go on from there.
    """
    coarse = coarse_grid(spec)
    share = spec.n_fft // coarse.n_fft
    frequencies = partial_frequencies(target, spec, workers)
    turns = advancing_phases(frequencies[:, ::share], spec)
    coarse_target = target[:, ::share].contiguous()
    if anchor is None:
        turns += first_phases(frequencies[0], spec, generator)[::share]
        return torch.polar(coarse_target, 2 * torch.pi * turns)[None]
    known = stft(anchor.samples, coarse)
    last = int((anchor.weight == 1.0).cumprod(dim=0).sum() - spec.win_length) // spec.hop_length
    turns += known[0, last].angle() / (2 * torch.pi) - turns[last]
    sounding = magnitude(known) > 0
    return torch.where(sounding, with_magnitude(known, coarse_target), torch.polar(coarse_target, 2 * torch.pi * turns))


def _followed(mel: Tensor, spec: MelSpec) -> Refresh:
    """Return how the targets follow the sound: its magnitudes, moved one step towards the mel values."""
    return lambda spectrum, rows: refined(magnitudes(spectrum, mel.shape[0]), mel[..., rows], spec)


def _continued(previous: Tensor, known_frames: int, frames: int, spec: MelSpec) -> Anchor:
    """Return the anchor of a block that begins with the sound `previous` (channels, n)."""
    length = reach(frames, spec)
    samples = previous.new_zeros(previous.shape[0], length)
    count = min(length, previous.shape[-1])
    samples[:, :count] = previous[:, :count]
    weight = previous.new_zeros(length)
    certain = margin(spec) + known_frames * spec.hop_length
    weight[:certain] = 1.0
    fade = min(spec.win_length, count - certain)
    weight[certain : certain + fade] = _falling(fade, previous)
    return Anchor(samples, weight)


def _closed(anchor: Anchor, opening: Tensor, end_frames: int, spec: MelSpec) -> Anchor:
    """Return the anchor of a loop's last block: from `end_frames` on its sound is that of the loop's beginning.

    `opening` is the first block's sound, which begins AHEAD_FRAMES before the beginning.
    """
    samples, weight = anchor.samples.clone(), anchor.weight.clone()
    shift = (end_frames - AHEAD_FRAMES) * spec.hop_length
    tail = opening[:, : samples.shape[-1] - shift]
    end = margin(spec) + end_frames * spec.hop_length
    fade = spec.win_length
    samples[:, end - fade : shift + tail.shape[-1]] = tail[:, end - fade - shift :]
    weight[end - fade : end] = _falling(fade, weight).flip(0)
    weight[end:] = 1.0
    return Anchor(samples, weight)


def _falling(length: int, like: Tensor) -> Tensor:
    """Return half a period of a raised cosine, from 1 to 0."""
    ramp = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length
    return 0.5 + 0.5 * torch.cos(torch.pi * ramp)

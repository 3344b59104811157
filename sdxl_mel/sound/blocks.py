"""Inversion of a picture in overlapping blocks, so that memory does not grow with its length.

A block begins with frames whose sound was given out already. Inside its phase retrieval that sound is held fixed, and
fades into what the previous block had thought would follow: the pieces are one signal, without joints.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.demel import linear_of_mel, refined
from sdxl_mel.sound.mel import Float, magnitude, margin, reach, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.phase import Anchor, Consistency, Refresh, fast_griffin_lim, relaxed_reflections
from sdxl_mel.sound.pixels import mel_of_values
from sdxl_mel.sound.stereo import magnitudes, with_magnitude

BLOCK_FRAMES = 1024
KNOWN_FRAMES = 16
"""Frames of sound already given out that the next block must agree with."""
AHEAD_FRAMES = 16
"""Frames that a block works on but leaves to the next, which knows what follows them."""


@dataclass(frozen=True)
class Effort:
    """Numbers of iterations.

    `demel` mel to linear; `reflections` RAAR and `griffin_lim` fast Griffin-Lim on one channel (the mid of a stereo
    picture); `stereo` fast Griffin-Lim on left, mid and right together; `joint` lets the targets follow the sound.
    """

    demel: int
    reflections: int
    griffin_lim: int
    stereo: int
    joint: bool


def retrieved_blocks(
    values: Float, spec: MelSpec, effort: Effort, seed: int, *, loop: bool, device: str
) -> Iterator[Tensor]:
    """Yield the sound (1 or 2, samples) of picture values (n_mels, frames, 1 or 3), piece by piece."""
    frames = values.shape[1]
    if frames <= BLOCK_FRAMES:
        sound = _retrieved(values, spec, effort, _phases(frames, spec, seed, 0, device), loop=loop)
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
        phases = _phases(stop - start, spec, seed, block, device)
        sound = _retrieved(values[:, order[start:stop]], spec, effort, phases, anchor=anchor)
        opening = sound[:, : (2 * AHEAD_FRAMES + KNOWN_FRAMES) * spec.hop_length] if loop and block == 0 else opening
        end = last if stop == order.size else stop - AHEAD_FRAMES
        origin = margin(spec) - start * spec.hop_length
        yield sound[:, origin + given * spec.hop_length : origin + end * spec.hop_length]
        previous = sound[:, (end - KNOWN_FRAMES - start) * spec.hop_length :]
        start, given, block = end - KNOWN_FRAMES, end, block + 1


def _retrieved(
    values: Float, spec: MelSpec, effort: Effort, phases: Tensor, *, anchor: Anchor | None = None, loop: bool = False
) -> Tensor:
    """Return the sound (1 or 2, reach) of one block; `phases` (1, frames, n_bins) are where it starts from."""
    with torch.inference_mode():
        mel = torch.from_numpy(mel_of_values(values, spec)).to(phases.device).permute(2, 0, 1).contiguous()
        target = linear_of_mel(mel, spec, effort.demel)
        stereo = mel.shape[0] == 3
        middle = slice(1, 2) if stereo else slice(0, 1)
        mono = anchor.mono() if anchor is not None else None
        consistent = Consistency(spec, loop, mono)
        start = _started(target[middle] * phases, target[middle], mono, spec)
        spectrum = relaxed_reflections(start, target[middle], consistent, effort.reflections)
        spectrum = fast_griffin_lim(
            spectrum, target[middle], consistent, effort.griffin_lim, _refresh(mel[middle], spec, effort.joint)
        )
        if stereo:
            consistent = Consistency(spec, loop, anchor)
            start = _started(with_magnitude(spectrum, target[::2]), target[::2], anchor, spec)
            spectrum = fast_griffin_lim(start, target, consistent, effort.stereo, _refresh(mel, spec, effort.joint))
        return consistent.sound(spectrum)


def _phases(frames: int, spec: MelSpec, seed: int, block: int, device: str) -> Tensor:
    angles = torch.rand((1, frames, spec.n_bins), generator=torch_generator(seed, "phase", block)).to(device)
    return torch.polar(torch.ones_like(angles), 2 * torch.pi * angles)


def _started(spectrum: Tensor, target: Tensor, anchor: Anchor | None, spec: MelSpec) -> Tensor:
    """Return a first spectrum that has the phases of the known sound where there is any."""
    if anchor is None:
        return spectrum
    known = stft(anchor.samples, spec)
    sounding = magnitude(known) > 0
    return torch.where(sounding, with_magnitude(known, target), spectrum)


def _refresh(mel: Tensor, spec: MelSpec, joint: bool) -> Refresh | None:
    """Return how the targets follow the sound, nothing when they shall not."""
    return (lambda spectrum: refined(magnitudes(spectrum, mel.shape[0]), mel, spec)) if joint else None


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

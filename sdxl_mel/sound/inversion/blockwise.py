"""Inversion by phase retrieval, in overlapping blocks, so that memory does not grow with the length of a picture.

A block begins with frames whose sound the previous block has already returned. Its phase retrieval holds that sound
fixed and fades from there into the previous block's estimate of what follows, so the blocks make one signal.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Float
from sdxl_mel.errors import InputError
from sdxl_mel.execution import piecewise
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.inversion.mel_to_linear import mel_to_linear, multiplicative_update
from sdxl_mel.sound.inversion.phase_init import accumulated_phases, initial_phases, partial_frequencies
from sdxl_mel.sound.inversion.projections import Consistency, KnownSound, fast_griffin_lim, raar
from sdxl_mel.sound.inversion.stereo import leading_channel, magnitudes, stereo_from_leading, with_magnitude
from sdxl_mel.sound.mel import magnitude, margin, reach, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import Picture, dequantise, mel_of_values

BLOCK_FRAMES = 1024
KNOWN_FRAMES = 16
"""Frames at the start of a block whose sound was returned already; the block must agree with them."""
AHEAD_FRAMES = 16
"""Frames at the end of a block that the next one computes again, knowing what follows them."""


@dataclass(frozen=True)
class Iterations:
    """Numbers of iterations, in the order of the steps.

    `mel_to_linear`: multiplicative updates. On the coarse grid (see `coarse_grid`): `raar` on one channel (of a stereo
    picture mostly the mid), `stereo` of fast Griffin-Lim on left, mid and right together. `final`: fast Griffin-Lim on
    the spec's own grid, with targets that follow the sound.
    """

    mel_to_linear: int
    raar: int
    stereo: int
    final: int


class Between(NamedTuple):
    """The sound (1 or 2, samples) around what is retrieved, each from the first sample of its first frame's window.

    `before` begins with the picture, `after` AHEAD_FRAMES before its last KNOWN_FRAMES; both go a window further than
    what is known for certain. None where nothing is known.
    """

    before: Float | None
    after: Float | None

    @classmethod
    def read(cls, read: Callable[[int, int], Float], frames: int, spec: MelSpec) -> "Between":
        """Return what `read` (first sample, last sample) has of a picture of so many frames, the first at sample 0."""
        start, end = -margin(spec), (frames - KNOWN_FRAMES - AHEAD_FRAMES) * spec.hop_length - margin(spec)
        known, after = KNOWN_FRAMES * spec.hop_length, (2 * AHEAD_FRAMES + KNOWN_FRAMES) * spec.hop_length
        return cls(read(start, known + spec.win_length), read(end, end + after + spec.win_length))


def retrieve_phase(
    picture: Picture,
    spec: MelSpec,
    seed: int,
    *,
    loop: bool,
    device: str,
    iterations: Iterations,
    block_frames: int = BLOCK_FRAMES,
    between: Between | None = None,
) -> Iterator[Float]:
    """Yield the sound (1 or 2, samples) of a picture (n_mels, frames, 1 or 3), block by block.

    `between` is the sound at both ends of the picture; yielded is what lies between the KNOWN_FRAMES there.
    """
    frames = picture.shape[1]
    if loop and frames * spec.hop_length < spec.win_length:
        raise InputError(f"{frames} frames are shorter than one window; too short for a loop")
    if frames <= block_frames and between is None:
        sound = _invert_block(picture, spec, iterations, torch_generator(seed, "phase", 0), device, loop=loop)
        yield sound[:, margin(spec) : margin(spec) + frames * spec.hop_length].cpu().numpy()
        return
    # A loop begins and ends in its other end's frames, so that the last block can agree with the first.
    order = np.arange(-AHEAD_FRAMES, frames + KNOWN_FRAMES) % frames if loop else np.arange(frames)
    returned = AHEAD_FRAMES if loop else 0
    last = returned + frames
    start = 0
    beginning: Tensor | None = None
    previous: Tensor | None = None
    if between is not None:
        returned, last = KNOWN_FRAMES, frames - KNOWN_FRAMES
        previous, beginning = (None if sound is None else torch.from_numpy(sound).to(device) for sound in between)
    for block, stop in enumerate(block_stops(order.size, block_frames) if returned < last else ()):
        known = None if previous is None else _known_from_previous(previous, returned - start, stop - start, spec)
        if block + (between is not None) and beginning is not None and stop == order.size:
            known = _known_at_end(known or _nothing_known(beginning, stop - start, spec), beginning, last - start, spec)
        generator = torch_generator(seed, "phase", block)
        sound = _invert_block(picture[:, order[start:stop]], spec, iterations, generator, device, known=known)
        if loop and block == 0:
            beginning = sound[:, : (2 * AHEAD_FRAMES + KNOWN_FRAMES) * spec.hop_length]
        end = last if stop == order.size else stop - AHEAD_FRAMES
        origin = margin(spec) - start * spec.hop_length
        yield sound[:, origin + returned * spec.hop_length : origin + end * spec.hop_length].cpu().numpy()
        previous = sound[:, (end - KNOWN_FRAMES - start) * spec.hop_length :]
        start, returned = end - KNOWN_FRAMES, end


def block_stops(frames: int, block_frames: int = BLOCK_FRAMES) -> Iterator[int]:
    """Yield the frame after the last of each block of a picture: a block is made of the frames before it alone."""
    stop = min(block_frames, frames)
    yield stop
    while stop < frames:
        stop = min(stop - AHEAD_FRAMES - KNOWN_FRAMES + block_frames, frames)
        yield stop


def _invert_block(
    picture: Picture,
    spec: MelSpec,
    iterations: Iterations,
    generator: torch.Generator,
    device: str,
    *,
    known: KnownSound | None = None,
    loop: bool = False,
) -> Tensor:
    """Return the sound (1 or 2, reach) of one block; `generator` draws the phases that it starts from."""
    mel = torch.from_numpy(mel_of_values(dequantise(picture), spec)).to(device).permute(2, 0, 1).contiguous()
    channels, _, frames = mel.shape
    with piecewise() as workers:
        target = mel_to_linear(mel, spec, iterations.mel_to_linear, workers)
        lead = leading_channel(target)
        known_lead = None if known is None else known.leading(lead)
        coarse = coarse_grid(spec)
        coarse_target = target[..., :: spec.n_fft // coarse.n_fft].contiguous()
        start = initial_spectrum(target[lead], spec, generator, known_lead, workers)
        consistency = Consistency(coarse, frames, loop, known_lead, workers)
        sound = raar(start, coarse_target[lead : lead + 1], consistency, iterations.raar)
        if channels == 3:
            consistency = Consistency(coarse, frames, loop, known, workers)
            sound = consistency.sound_of(stereo_from_leading(stft(sound, coarse), coarse_target))
            sound = fast_griffin_lim(sound, coarse_target, consistency, iterations.stereo)
        consistency = Consistency(spec, frames, loop, known, workers)

        def moved_target(spectrum: Tensor, rows: slice) -> Tensor:
            """Return the sound's own magnitudes, moved one step towards the mel values."""
            return multiplicative_update(magnitudes(spectrum, channels), mel[..., rows], spec)

        return fast_griffin_lim(sound, target, consistency, iterations.final, moved_target)


def coarse_grid(spec: MelSpec) -> MelSpec:
    """Return the spec with an FFT no longer than its window needs: every k-th bin of the full one, at 1 / k the cost.

    Zero-padding gives each row of the picture a bin, but phase retrieval no further information: RAAR on the coarse
    grid ends as near to the target, so twice as many iterations fit in the same time.
    """
    share = spec.n_fft // spec.win_length
    return spec.model_copy(update={"n_fft": spec.n_fft // share}) if spec.n_fft % (2 * share) == 0 else spec


def initial_spectrum(
    target: Tensor,
    spec: MelSpec,
    generator: torch.Generator,
    known: KnownSound | None = None,
    workers: Executor | None = None,
) -> Tensor:
    """Return the spectrum (1, frames, coarse bins) to start from, of one channel's targets (frames, n_bins).

    Its phases are those of the known sound where there is any, and continue from there.
    """
    coarse = coarse_grid(spec)
    share = spec.n_fft // coarse.n_fft
    frequencies = partial_frequencies(target, spec, workers)
    cycles = accumulated_phases(frequencies[:, ::share], spec)
    coarse_target = target[:, ::share].contiguous()
    last = -1
    if known is not None:
        spectrum = stft(known.samples, coarse)
        last = int((known.weight == 1.0).cumprod(dim=0).sum() - spec.win_length) // spec.hop_length
    if known is None or last < 0:
        cycles += initial_phases(frequencies[0], spec, generator)[::share]
    else:
        cycles += spectrum[0, last].angle() / (2 * torch.pi) - cycles[last]
    if known is None:
        return torch.polar(coarse_target, 2 * torch.pi * cycles)[None]
    continued = torch.polar(coarse_target, 2 * torch.pi * cycles)
    return torch.where(magnitude(spectrum) > 0, with_magnitude(spectrum, coarse_target), continued)


def _known_from_previous(previous: Tensor, known_frames: int, frames: int, spec: MelSpec) -> KnownSound:
    """Return what a block of `frames` knows: it begins with the sound `previous` (channels, n).

    The first `known_frames` were returned already; what follows them fades out over one window.
    """
    length = reach(frames, spec)
    samples = previous.new_zeros(previous.shape[0], length)
    count = min(length, previous.shape[-1])
    samples[:, :count] = previous[:, :count]
    weight = previous.new_zeros(length)
    certain = margin(spec) + known_frames * spec.hop_length
    weight[:certain] = 1.0
    fade = min(spec.win_length, count - certain)
    weight[certain : certain + fade] = _fade_out(fade, previous)
    return KnownSound(samples, weight)


def _nothing_known(like: Tensor, frames: int, spec: MelSpec) -> KnownSound:
    length = reach(frames, spec)
    return KnownSound(like.new_zeros(like.shape[0], length), like.new_zeros(length))


def _known_at_end(known: KnownSound, beginning: Tensor, end_frames: int, spec: MelSpec) -> KnownSound:
    """Return what a last block knows too: from `end_frames` on, its sound is that of what follows.

    `beginning` is that sound, of a loop its start, from AHEAD_FRAMES before the first frame that is known.
    """
    samples, weight = known.samples.clone(), known.weight.clone()
    shift = (end_frames - AHEAD_FRAMES) * spec.hop_length
    tail = beginning[:, : samples.shape[-1] - shift]
    end = margin(spec) + end_frames * spec.hop_length
    fade = spec.win_length
    samples[:, end - fade : shift + tail.shape[-1]] = tail[:, end - fade - shift :]
    weight[end - fade : end] = _fade_out(fade, weight).flip(0)
    weight[end:] = 1.0
    return KnownSound(samples, weight)


def _fade_out(length: int, like: Tensor) -> Tensor:
    """Return half a period of a raised cosine, from 1 to 0."""
    ramp = (torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length
    return 0.5 + 0.5 * torch.cos(torch.pi * ramp)

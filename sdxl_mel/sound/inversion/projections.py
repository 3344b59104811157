"""Phase retrieval: projections between the spectra of target magnitudes (P_A) and the STFTs of sounds (P_C).

P_A gives a spectrum the target magnitudes and keeps its phase; P_C makes it consistent: the STFT of a sound. Spectra
are complex (channels, frames, n_bins); targets of one channel are (1, frames, n_bins), of two (3, ...): left, mid and
right. An iteration is one pass over the sound, a few frames at a time, so that its numbers stay in the CPU's cache:
twice as fast as the same formulas on whole spectra.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sdxl_mel.execution import stop_if_asked
from sdxl_mel.sound.inversion.stereo import magnitudes, project
from sdxl_mel.sound.mel import bins_below_fmin, divided_by_window_sum, overlap_add, reach, stft, windowed_frames
from sdxl_mel.sound.melspec import MelSpec

MOMENTUM = 0.99
RELAXATION = 0.9
CHUNK_FRAMES = 192
"""Frames worked on at a time on the CPU; a GPU takes all at once."""

SpectrumUpdate = Callable[[Tensor, slice], Tensor]
"""From the spectrum (channels, few frames, n_bins) of the sound, and which frames these are, to their next spectrum."""
TargetUpdate = Callable[[Tensor, slice], Tensor]
"""From the same to new target magnitudes of these frames."""


@dataclass(frozen=True)
class KnownSound:
    """Samples that are known already, (channels, reach), and how much each counts, 0..1 (reach,)."""

    samples: Tensor
    weight: Tensor

    def leading(self, channel: int) -> "KnownSound":
        """Return the left channel (0), or the mean of both (1)."""
        samples = self.samples[:1] if channel == 0 else self.samples.mean(dim=0, keepdim=True)
        return KnownSound(samples, self.weight)


@dataclass(frozen=True)
class Consistency:
    """P_C, of a sound that may be a loop or may have to agree with what is known of it."""

    spec: MelSpec
    frames: int
    loop: bool = False
    known: KnownSound | None = None
    workers: Executor | None = None

    def sound_of(self, spectrum: Tensor) -> Tensor:
        """Return the sound (channels, reach) nearest to a spectrum (channels, frames, n_bins) in least squares."""
        return self._inverse_stft(spectrum.shape[0], spectrum.device, lambda rows: spectrum[:, rows])

    def updated_sound(self, update: SpectrumUpdate, sound: Tensor) -> Tensor:
        """Return the sound (channels, reach) nearest to the updated spectrum of `sound`."""

        def updated_spectrum(rows: slice) -> Tensor:
            first = rows.start * self.spec.hop_length
            piece = sound[:, first : first + reach(rows.stop - rows.start, self.spec)]
            return update(stft(piece, self.spec), rows)

        return self._inverse_stft(sound.shape[0], sound.device, updated_spectrum)

    def _inverse_stft(self, channels: int, device: torch.device, spectrum: Callable[[slice], Tensor]) -> Tensor:
        hop_length = self.spec.hop_length
        total = torch.zeros(channels, reach(self.frames, self.spec), device=device)

        def piece_of(rows: slice) -> Tensor:
            return overlap_add(windowed_frames(spectrum(rows), self.spec), hop_length)

        size = CHUNK_FRAMES if device.type == "cpu" else self.frames
        chunks = [slice(start, min(start + size, self.frames)) for start in range(0, self.frames, size)]
        mapped = map if self.workers is None else self.workers.map
        for rows, piece in zip(chunks, mapped(piece_of, chunks)):
            stop_if_asked()
            total[:, rows.start * hop_length : rows.start * hop_length + piece.shape[-1]] += piece
        sound = divided_by_window_sum(total, self.frames, self.spec, self.loop)
        return sound if self.known is None else torch.lerp(sound, self.known.samples, self.known.weight)


def fast_griffin_lim(
    sound: Tensor, target: Tensor, consistency: Consistency, iterations: int, target_update: TargetUpdate | None = None
) -> Tensor:
    """Return the sound (channels, reach) that fast Griffin-Lim makes of a first one.

    t <- c + a (c - c_previous), then P_A (Perraudin et al. 2013, algorithm 2). With `target_update` the targets follow
    the sound in all but the first third of the iterations.
    """
    free_bins = bins_below_fmin(consistency.spec)
    previous: dict[int, Tensor] = {}

    def update(spectrum: Tensor, rows: slice, follow: TargetUpdate | None) -> Tensor:
        if follow is not None:
            target[:, rows] = follow(spectrum, rows)
        before = previous.get(rows.start)
        previous[rows.start] = spectrum
        accelerated = spectrum if before is None else _lerp(before, spectrum, 1 + MOMENTUM)
        return project(accelerated, _with_free_bins(target[:, rows], accelerated, free_bins))

    for iteration in range(iterations):
        follow = target_update if iteration >= iterations // 3 else None
        sound = consistency.updated_sound(partial(update, follow=follow), sound)
    return sound


def raar(start: Tensor, target: Tensor, consistency: Consistency, iterations: int) -> Tensor:
    """Return the sound (channels, reach) that RAAR makes of a first spectrum (channels, frames, n_bins).

    Relaxed averaged alternating reflections (Luke 2005, equation 2.1), a better start for `fast_griffin_lim` than that
    finds by itself: X <- b/2 (X + R_C R_A X) + (1 - b) P_A X with R = 2 P - 1, which is A + b (P_C r - r) with
    A = P_A X, r = 2 A - X.
    """
    projected = project(start, target)
    if iterations == 0:
        return consistency.sound_of(projected)
    free_bins = bins_below_fmin(consistency.spec)
    reflected = 2 * projected - start

    def update(spectrum: Tensor, rows: slice) -> Tensor:
        estimate = spectrum.sub_(reflected[:, rows]).mul_(RELAXATION).add_(projected[:, rows])
        nearest = project(estimate, _with_free_bins(target[:, rows], estimate, free_bins))
        projected[:, rows] = nearest
        reflection = reflected[:, rows] = _lerp(estimate, nearest, 2.0)
        return reflection

    sound = consistency.sound_of(reflected)
    for _ in range(iterations):
        sound = consistency.updated_sound(update, sound)
    return consistency.sound_of(projected)


def _with_free_bins(target: Tensor, spectrum: Tensor, free_bins: int) -> Tensor:
    """Return the target, written in place, with the spectrum's own magnitudes in its `free_bins` lowest bins."""
    if free_bins:
        target[..., :free_bins] = magnitudes(spectrum[..., :free_bins].contiguous(), target.shape[0])
    return target


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Return start + weight (end - start); on pairs of reals torch takes half the time that it takes on complex."""
    return torch.view_as_complex(torch.lerp(torch.view_as_real(start), torch.view_as_real(end), weight))

"""Phase retrieval: projections between the spectra of target magnitudes (P_A) and the STFTs of sounds (P_C).

P_A gives a spectrum the target magnitudes and keeps its phase; P_C makes it consistent: the STFT of a sound. Spectra
are complex (channels, frames, n_bins); targets of one channel are (1, frames, n_bins), of two (3, ...): left, mid and
right. An iteration is one pass over the sound, a few frames at a time, so that its numbers stay in the CPU's cache:
twice as fast as the same formulas on whole spectra.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def left(self) -> "KnownSound":
        """Return the first channel."""
        return KnownSound(self.samples[:1], self.weight)

    def mid(self) -> "KnownSound":
        """Return the mean of the channels."""
        return KnownSound(self.samples.mean(dim=0, keepdim=True), self.weight)


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

        chunks = list(self._chunks(device))
        mapped = map if self.workers is None else self.workers.map
        for rows, piece in zip(chunks, mapped(piece_of, chunks)):
            total[:, rows.start * hop_length : rows.start * hop_length + piece.shape[-1]] += piece
        sound = divided_by_window_sum(total, self.frames, self.spec, self.loop)
        return sound if self.known is None else torch.lerp(sound, self.known.samples, self.known.weight)

    def _chunks(self, device: torch.device) -> Iterator[slice]:
        size = CHUNK_FRAMES if device.type == "cpu" else self.frames
        for start in range(0, self.frames, size):
            yield slice(start, min(start + size, self.frames))


class FastGriffinLim:
    """Fast Griffin-Lim (Perraudin et al. 2013, algorithm 2): t <- c + a (c - c_previous), then P_A.

    With `target_update` the targets follow the sound. The `free_bins` lowest bins have no target.
    """

    def __init__(self, target: Tensor, free_bins: int = 0, target_update: TargetUpdate | None = None) -> None:
        self.target, self.free_bins, self.target_update = target, free_bins, target_update
        self.previous: dict[int, Tensor] = {}

    def __call__(self, spectrum: Tensor, rows: slice) -> Tensor:
        """Return P_A of the spectrum with momentum."""
        if self.target_update is not None:
            self.target[:, rows] = self.target_update(spectrum, rows)
        previous = self.previous.get(rows.start)
        self.previous[rows.start] = spectrum
        accelerated = spectrum if previous is None else _lerp(previous, spectrum, 1 + MOMENTUM)
        return project(accelerated, _with_free_bins(self.target[:, rows], accelerated, self.free_bins))


class RelaxedReflections:
    """RAAR, relaxed averaged alternating reflections (Luke 2005, equation 2.1).

    It finds a better start for `FastGriffinLim` than that finds by itself.

    X <- b/2 (X + R_C R_A X) + (1 - b) P_A X with R = 2 P - 1, which is A + b (P_C r - r) with A = P_A X, r = 2 A - X.
    """

    def __init__(self, start: Tensor, target: Tensor, free_bins: int = 0) -> None:
        self.target, self.free_bins = target, free_bins
        self.projected = project(start, target)
        self.reflected = 2 * self.projected - start

    def __call__(self, spectrum: Tensor, rows: slice) -> Tensor:
        """Return the reflection of the next estimate."""
        estimate = spectrum.sub_(self.reflected[:, rows]).mul_(RELAXATION).add_(self.projected[:, rows])
        projected = project(estimate, _with_free_bins(self.target[:, rows], estimate, self.free_bins))
        self.projected[:, rows] = projected
        reflected = self.reflected[:, rows] = _lerp(estimate, projected, 2.0)
        return reflected


def _with_free_bins(target: Tensor, spectrum: Tensor, free_bins: int) -> Tensor:
    """Return the target, written in place, with the spectrum's own magnitudes in its `free_bins` lowest bins."""
    if free_bins:
        target[..., :free_bins] = magnitudes(spectrum[..., :free_bins].contiguous(), target.shape[0])
    return target


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Return start + weight (end - start); on pairs of reals torch takes half the time that it takes on complex."""
    return torch.view_as_complex(torch.lerp(torch.view_as_real(start), torch.view_as_real(end), weight))


def fast_griffin_lim(
    sound: Tensor, target: Tensor, consistency: Consistency, iterations: int, target_update: TargetUpdate | None = None
) -> Tensor:
    """Return the sound (channels, reach) that fast Griffin-Lim makes of a first one.

    With `target_update` the targets follow the sound in all but the first third of the iterations.
    """
    update = FastGriffinLim(target, bins_below_fmin(consistency.spec))
    for iteration in range(iterations):
        update.target_update = target_update if iteration >= iterations // 3 else None
        sound = consistency.updated_sound(update, sound)
    return sound


def raar(start: Tensor, target: Tensor, consistency: Consistency, iterations: int) -> Tensor:
    """Return the sound (channels, reach) that RAAR makes of a first spectrum (channels, frames, n_bins)."""
    if iterations == 0:
        return consistency.sound_of(project(start, target))
    update = RelaxedReflections(start, target, bins_below_fmin(consistency.spec))
    sound = consistency.sound_of(update.reflected)
    for _ in range(iterations):
        sound = consistency.updated_sound(update, sound)
    return consistency.sound_of(update.projected)

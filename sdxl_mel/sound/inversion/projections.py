"""Phase retrieval: alternating projections between spectra of a wanted magnitude and spectra of real sound.

Notation of the sources: P_A gives a spectrum the wanted magnitudes and keeps its phase, P_C makes it the STFT of a
sound. Spectra are complex (channels, frames, n_bins); one channel has targets (1, frames, n_bins), two have (3, ...):
left, mid and right. An iteration is one pass over the sound, a few frames at a time, so that its numbers stay in the
cache: twice as fast as the same formulas on whole spectra.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdxl_mel.sound.inversion.stereo import magnitudes, project
from sdxl_mel.sound.mel import normalised_overlap, overlap_add, reach, stft, unseen_bins, windowed_pieces
from sdxl_mel.sound.melspec import MelSpec

MOMENTUM = 0.99
RELAXATION = 0.9
CHUNK_FRAMES = 192
"""Frames worked on at a time on the CPU; a GPU takes all at once."""

Refresh = Callable[[Tensor, slice], Tensor]
"""From the spectrum of the sound and its frames to new target magnitudes."""


@dataclass(frozen=True)
class Anchor:
    """Samples that are known already, (channels, reach), and how much each counts, 0..1 (reach,)."""

    samples: Tensor
    weight: Tensor

    def left(self) -> "Anchor":
        """Return the anchor of the first channel."""
        return Anchor(self.samples[:1], self.weight)

    def mid(self) -> "Anchor":
        """Return the anchor of the mean of the channels."""
        return Anchor(self.samples.mean(dim=0, keepdim=True), self.weight)


class Step(Protocol):
    """What an iteration makes of the spectrum (channels, few frames, n_bins) of the sound."""

    def __call__(self, spectrum: Tensor, rows: slice) -> Tensor:
        """Return the next spectrum of the frames `rows`."""


@dataclass(frozen=True)
class Consistency:
    """P_C: back to a sound, which may be a loop, or may have to agree with what is known."""

    spec: MelSpec
    frames: int
    loop: bool = False
    anchor: Anchor | None = None
    workers: Executor | None = None

    def sound_of(self, spectrum: Tensor) -> Tensor:
        """Return the sound (channels, reach) nearest to a whole spectrum."""
        return self._collected(spectrum.shape[0], spectrum.device, lambda rows: spectrum[:, rows])

    def through(self, step: Step, sound: Tensor) -> Tensor:
        """Return the sound nearest to what `step` makes of the spectrum of `sound`."""

        def stepped(rows: slice) -> Tensor:
            first = rows.start * self.spec.hop_length
            piece = sound[:, first : first + reach(rows.stop - rows.start, self.spec)]
            return step(stft(piece, self.spec), rows)

        return self._collected(sound.shape[0], sound.device, stepped)

    def _collected(self, channels: int, device: torch.device, spectrum: Callable[[slice], Tensor]) -> Tensor:
        hop_length = self.spec.hop_length
        total = torch.zeros(channels, reach(self.frames, self.spec), device=device)

        def piece_of(rows: slice) -> Tensor:
            return overlap_add(windowed_pieces(spectrum(rows), self.spec), hop_length)

        chunks = list(self._chunks(device))
        mapped = map if self.workers is None else self.workers.map
        for rows, piece in zip(chunks, mapped(piece_of, chunks)):
            total[:, rows.start * hop_length : rows.start * hop_length + piece.shape[-1]] += piece
        sound = normalised_overlap(total, self.frames, self.spec, self.loop)
        return sound if self.anchor is None else torch.lerp(sound, self.anchor.samples, self.anchor.weight)

    def _chunks(self, device: torch.device) -> Iterator[slice]:
        size = CHUNK_FRAMES if device.type == "cpu" else self.frames
        for start in range(0, self.frames, size):
            yield slice(start, min(start + size, self.frames))


class FastGriffinLim:
    """Fast Griffin-Lim (Perraudin et al. 2013, algorithm 2): t <- c + a (c - c_previous), then P_A.

    With `refresh` the targets follow the sound. `unseen` is the number of lowest bins that may be anything.
    """

    def __init__(self, target: Tensor, unseen: int = 0, refresh: Refresh | None = None) -> None:
        self.target, self.unseen, self.refresh = target, unseen, refresh
        self.previous: dict[int, Tensor] = {}

    def __call__(self, spectrum: Tensor, rows: slice) -> Tensor:
        """Return the projection of the spectrum carried on by its momentum."""
        if self.refresh is not None:
            self.target[:, rows] = self.refresh(spectrum, rows)
        previous = self.previous.get(rows.start)
        self.previous[rows.start] = spectrum
        carried = spectrum if previous is None else _lerp(previous, spectrum, 1 + MOMENTUM)
        return project(carried, _freed(self.target[:, rows], carried, self.unseen))


class RelaxedReflections:
    """RAAR (Luke 2005, equation 2.1), which finds a better start for `FastGriffinLim` than that finds by itself.

    X <- b/2 (X + R_C R_A X) + (1 - b) P_A X with R = 2 P - 1, which is A + b (P_C r - r) with A = P_A X, r = 2 A - X.
    """

    def __init__(self, start: Tensor, target: Tensor, unseen: int = 0) -> None:
        self.target, self.unseen = target, unseen
        self.projected = project(start, target)
        self.reflected = 2 * self.projected - start

    def __call__(self, spectrum: Tensor, rows: slice) -> Tensor:
        """Return the reflection of the next estimate."""
        estimate = spectrum.sub_(self.reflected[:, rows]).mul_(RELAXATION).add_(self.projected[:, rows])
        projected = project(estimate, _freed(self.target[:, rows], estimate, self.unseen))
        self.projected[:, rows] = projected
        reflected = self.reflected[:, rows] = _lerp(estimate, projected, 2.0)
        return reflected


def _freed(target: Tensor, spectrum: Tensor, unseen: int) -> Tensor:
    """Return the target with the magnitudes that the `unseen` lowest bins of the spectrum have already."""
    if unseen:
        target[..., :unseen] = magnitudes(spectrum[..., :unseen].contiguous(), target.shape[0])
    return target


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Return start + weight (end - start); on pairs of reals torch takes half the time that it takes on complex."""
    return torch.view_as_complex(torch.lerp(torch.view_as_real(start), torch.view_as_real(end), weight))


def fast_griffin_lim(
    sound: Tensor, target: Tensor, consistent: Consistency, iterations: int, refresh: Refresh | None = None
) -> Tensor:
    """Return a sound (channels, reach) whose magnitudes are near the target, from one that is less so.

    With `refresh` the targets follow the sound for all but the first third of the iterations.
    """
    step = FastGriffinLim(target, unseen_bins(consistent.spec))
    for iteration in range(iterations):
        step.refresh = refresh if iteration >= iterations // 3 else None
        sound = consistent.through(step, sound)
    return sound


def relaxed_reflections(start: Tensor, target: Tensor, consistent: Consistency, iterations: int) -> Tensor:
    """Return the sound (channels, reach) that RAAR finds from a first spectrum."""
    if iterations == 0:
        return consistent.sound_of(project(start, target))
    step = RelaxedReflections(start, target, unseen_bins(consistent.spec))
    sound = consistent.sound_of(step.reflected)
    for _ in range(iterations):
        sound = consistent.through(step, sound)
    return consistent.sound_of(step.projected)

"""Initial phases for phase retrieval: those that the partials of a magnitude spectrogram would have.

Each lobe of a spectrum is taken for one partial. The shape of the lobe gives its frequency, and the frequency
accumulated over time its phase (single pass spectrogram inversion: Beauregard, Harish and Wyse 2015). From random
phases a steady tone is retrieved in pieces whose phases do not agree, which no number of iterations repairs.
"""

from concurrent.futures import Executor

import torch
from torch import Tensor

from sdxl_mel.sound.melspec import MelSpec

CHUNK_FRAMES = 192
LARGEST_RATIO = 1e18


def partial_frequencies(magnitudes: Tensor, spec: MelSpec, workers: Executor | None = None) -> Tensor:
    """Return the frequency, in bins, of the partial in whose lobe each bin of (frames, n_bins) magnitudes lies."""
    frames = CHUNK_FRAMES if magnitudes.device.type == "cpu" else magnitudes.shape[0]
    mapped = map if workers is None else workers.map
    return torch.cat(list(mapped(lambda part: _partial_frequencies(part, spec), magnitudes.split(frames))))


def accumulated_phases(frequencies: Tensor, spec: MelSpec) -> Tensor:
    """Return the phases, in cycles, of frequencies (frames, bins) in bins, accumulated from zero in the first frame."""
    cycles = (frequencies[1:] + frequencies[:-1]) * (spec.hop_length / spec.n_fft / 2)
    cycles -= cycles.floor()  # The sums stay small enough for float32.
    return torch.nn.functional.pad(cycles.cumsum_(dim=0), (0, 0, 1, 0))


def initial_phases(frequencies: Tensor, spec: MelSpec, generator: torch.Generator) -> Tensor:
    """Return the phases, in cycles, of the first frame's frequencies (n_bins,): random for each partial, not each bin.

    Within a lobe the phase falls linearly, as that of a window whose middle is half a window after its first sample.
    """
    partial = (frequencies.diff(prepend=frequencies[:1]) != 0).cumsum(dim=0)
    drawn = torch.rand(frequencies.shape[0], generator=generator).to(frequencies.device)
    bins = torch.arange(frequencies.shape[0], device=frequencies.device)
    return drawn[partial] - bins * (spec.win_length / spec.n_fft / 2)


def _partial_frequencies(magnitudes: Tensor, spec: MelSpec) -> Tensor:
    rising = magnitudes.diff(dim=-1) > 0
    peaks = torch.nn.functional.pad(rising[:, :-1] & ~rising[:, 1:], (1, 1))
    valleys = torch.nn.functional.pad(~rising[:, :-1] & rising[:, 1:], (1, 1))
    lobe = valleys.cumsum(dim=-1)
    frame, peak = peaks.nonzero(as_tuple=True)
    found = magnitudes.new_full((magnitudes.shape[0], int(lobe[:, -1].max()) + 1), -1.0)
    found[frame, lobe[frame, peak]] = peak + _bin_offset(magnitudes, frame, peak, spec)
    frequency = found.gather(-1, lobe)
    bins = torch.arange(magnitudes.shape[-1], dtype=magnitudes.dtype, device=magnitudes.device)
    return torch.where(frequency < 0, bins, frequency)


def _bin_offset(magnitudes: Tensor, frame: Tensor, peak: Tensor, spec: MelSpec) -> Tensor:
    """Return the offset of a partial from the highest bin of its lobe, in bins.

    Of an FFT as long as the Hann window, a neighbour r times as high as the peak gives (2 r - 1) / (r + 1) (Grandke
    1983). The estimates of both neighbours are averaged with their heights as weights: magnitudes from mel values are
    more accurate where they are higher, and unknown beyond the last band.
    """
    step = max(1, round(spec.n_fft / spec.win_length))
    padded = torch.nn.functional.pad(magnitudes, (step, step))
    here = padded[frame, peak + step]
    # A neighbour may belong to another lobe, and a lobe may be so low that the ratio has no finite square.
    above, below = ((padded[frame, peak + at] / here).clamp_max_(LARGEST_RATIO) for at in (2 * step, 0))
    offset = above * (2 * above - 1) / (above + 1) - below * (2 * below - 1) / (below + 1)
    return step * (offset / (above + below).clamp_min(1e-6)).clamp(-1, 1)

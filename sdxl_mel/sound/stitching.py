"""Tiles to one long picture, and how much its seams stand out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sdxl_mel.arrays import Levels
from sdxl_mel.sound.blend import close_loop, join, starts_of
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import (
    beat_frames,
    context_frames,
    junction_score,
    matching_overlap,
    onset_envelope,
    seam_scores,
    shared_overlap,
)


@dataclass(frozen=True)
class Seam:
    """One join: the first frame and the length of the overlap, and the z-score of the spectral flux across it.

    A score of 0 is an ordinary moment of the piece, above 2 stands out; None where too little music is beside it.
    """

    start: int
    overlap: int
    score: float | None


@dataclass(frozen=True)
class Stitched:
    """A long picture, its seams, and for a loop the z-score of the flux from its end to its start."""

    levels: Levels
    seams: tuple[Seam, ...]
    junction: float | None = None


def stitch(
    tiles: Sequence[Levels],
    overlaps: Sequence[int],
    spec: MelSpec,
    *,
    crossfade: int | None = None,
    closing: int | None = None,
) -> Stitched:
    """Join tiles (n_mels, frames, channels) that share `overlaps` frames with the next, blended as sound is: in power.

    `crossfade` frames in the middle of an overlap are blended, None = all of it. With `closing` the last tile shares so
    many frames with the first, and the piece repeats without a seam. Raises InputError for overlaps that do not fit.
    """
    levels = join(tiles, overlaps, spec, crossfade)
    starts = starts_of([tile.shape[1] for tile in tiles], overlaps)[1:]
    if closing is not None:
        levels = close_loop(levels, closing, spec, crossfade)
    junction = junction_score(dequantise(levels)) if closing is not None else None
    return Stitched(levels, scored_seams(levels, list(zip(starts, overlaps)), spec), junction)


def scored_seams(levels: Levels, seams: Sequence[tuple[int, int]], spec: MelSpec) -> tuple[Seam, ...]:
    """Return the seams (first frame, frames shared) of a picture with the z-score of each."""
    starts, overlaps = [start for start, _ in seams], [overlap for _, overlap in seams]
    scores = seam_scores(dequantise(levels), starts, overlaps, context_frames(spec.sample_rate / spec.hop_length))
    return tuple(Seam(*seam, None if math.isnan(score) else score) for seam, score in zip(seams, scores))


def likely_overlap(earlier: Levels, later: Levels, spec: MelSpec, nominal: int) -> int:
    """Return how many frames two tiles share: equal frames where there are some, else as their onsets coincide best.

    The search goes from `nominal` frames at most a beat, or half of `nominal`, to either side.
    """
    one, two = dequantise(earlier), dequantise(later)
    shared = shared_overlap(one, two, nominal)
    if shared is not None:
        return shared
    reach = beat_frames(onset_envelope(one), spec.sample_rate / spec.hop_length)
    return matching_overlap(one, two, nominal, min(reach, nominal // 2))

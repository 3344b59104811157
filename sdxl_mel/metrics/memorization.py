"""Is a generated clip new, or a copy of a training track?

First by embedding: its nearest training window, against how near real clips that were held out come to the training
set. What is nearer than they are is then compared as sound, aligned in time; only both together make a copy.
"""

from dataclasses import dataclass

import librosa
import numpy as np
import scipy.signal

from sdxl_mel.arrays import Float, Owner, Vectors

THRESHOLD_QUANTILE = 0.99
COPY_CORRELATION = 0.8
"""Aligned mel pictures of a clip and its copy through an 8-bit picture and inversion correlate above 0.9; of two pieces
for the same instruments, below 0.6."""
SAMPLE_RATE = 16000
N_MELS, HOP = 64, 512


@dataclass(frozen=True)
class Neighbour:
    """The nearest training clip of a clip, and the cosine to it."""

    clip: int
    cosine: float


def nearest_neighbours(
    windows: Vectors, owner: Owner, training: Vectors, training_owner: Owner, same: bool = False
) -> list[Neighbour]:
    """Return for each clip the training clip with the nearest window, by its nearest window; rows are unit.

    With `same` both sets are one set, and a clip is not its own neighbour.
    """
    clips, others = int(owner.max()) + 1, int(training_owner.max()) + 1
    order, training_order = np.argsort(owner, kind="stable"), np.argsort(training_owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(clips))
    training_starts = np.searchsorted(training_owner[training_order], np.arange(others))
    training = training[training_order]
    best = np.empty((clips, others))
    for clip, start in enumerate(starts):
        end = starts[clip + 1] if clip + 1 < clips else len(owner)
        cosines = windows[order[start:end]] @ training.T
        best[clip] = np.maximum.reduceat(cosines.max(0), training_starts)
    if same:
        np.fill_diagonal(best, -1.0)
    return [Neighbour(int(row.argmax()), float(row.max())) for row in best]


def threshold_of(baseline: list[Neighbour]) -> float:
    """Return the cosine that held-out clips rarely exceed: their 99th percentile (the largest for fewer than 100)."""
    cosines = np.array([neighbour.cosine for neighbour in baseline])
    return float(np.quantile(cosines, THRESHOLD_QUANTILE, method="higher"))


def authenticity(generated: list[Neighbour], training: list[Neighbour]) -> float:
    """Return the share of clips no nearer to their neighbour than that is to its own (Alaa et al., 2022)."""
    return float(np.mean([one.cosine <= training[one.clip].cosine for one in generated]))


def copy_correlation(clip: Float, track: Float) -> float:
    """Return the best correlation of a clip's mel picture with any stretch of a track, -1..1; mono at 16 kHz.

    The mean of each band over time is removed, so that sharing an instrument is not sharing the notes. A stretch may
    hang over the track's ends by half the clip.
    """
    one, two = _picture(clip), _picture(track)
    if one.shape[1] > two.shape[1]:
        one, two = two, one
    frames = one.shape[1]
    one = one - one.mean(1, keepdims=True)
    two = np.pad(two - two.mean(1, keepdims=True), ((0, 0), (frames // 2, frames // 2)))
    products = scipy.signal.fftconvolve(two, one[:, ::-1], mode="valid", axes=1).sum(0)
    sums = np.cumsum(np.pad(two, ((0, 0), (1, 0))), axis=1)
    squares = np.cumsum(np.pad(np.square(two).sum(0), (1, 0)))
    means = (sums[:, frames:] - sums[:, :-frames]) / frames
    energies = squares[frames:] - squares[:-frames] - frames * np.square(means).sum(0)
    enough = energies > 1e-3 * max(float(energies.max()), 1e-12)
    norm = np.sqrt(np.maximum(energies, 1e-12) * np.square(one).sum() + 1e-12)
    return float(np.where(enough, products / norm, 0.0).max())


def _picture(samples: Float) -> Vectors:
    mel = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=1024, hop_length=HOP, n_mels=N_MELS, power=1)
    level = max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-8)
    return np.log1p(mel.astype(np.float64) / level)

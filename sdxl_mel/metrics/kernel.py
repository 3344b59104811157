"""Kernel audio distance: the unbiased squared maximum mean discrepancy with a Gaussian kernel, times 100.

The bandwidth is the median distance within the reference (as KADTK documents it; its code takes the evaluated set).
Windows of one clip are not independent draws, so pairs within a clip are left out; with one window a clip this is the
usual unbiased estimate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from sdxl_mel.seeding import numpy_generator

Vectors = NDArray[np.float64]
Owner = NDArray[np.intp]

SCALE = 100.0
BLOCK = 512
MOST_FOR_MEDIAN = 2000
"""Rows whose pairwise distances give the bandwidth; more change its third digit."""


def median_distance(rows: Vectors, seed: int = 0) -> float:
    """Return the median Euclidean distance between rows (n >= 2, d), of at most 2000 rows drawn without replacement."""
    if len(rows) > MOST_FOR_MEDIAN:
        rows = rows[np.sort(numpy_generator(seed, "bandwidth").permutation(len(rows))[:MOST_FOR_MEDIAN])]
    return float(np.median(pdist(rows)))


@dataclass(frozen=True)
class KernelSums:
    """Kernel values summed by pair of clips (a clip against itself included), and the number of windows of each clip.

    The first `split` clips are the generated ones, the others the reference.
    """

    sums: Vectors
    windows: Vectors
    split: int


def kernel_sums(
    generated: Vectors, owner: Owner, reference: Vectors, reference_owner: Owner, width: float
) -> KernelSums:
    """Return the sums of exp(-|x - y|^2 / (2 width^2)) of all windows by pair of clips, in blocks of bounded memory."""
    split = int(owner.max()) + 1
    rows = np.concatenate([generated, reference])
    clips = np.concatenate([owner, reference_owner + split])
    order = np.argsort(clips, kind="stable")
    rows, clips = rows[order], clips[order]
    starts = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
    squares = np.square(rows).sum(1)
    by_row = np.empty((len(rows), len(starts)))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        distances = squares[part, None] + squares - 2.0 * (rows[part] @ rows.T)
        kernel = np.exp(np.maximum(distances, 0.0, out=distances) * (-0.5 / width**2), out=distances)
        by_row[part] = np.add.reduceat(kernel, starts, axis=1)
    sums = np.add.reduceat(by_row, starts, axis=0)
    return KernelSums(sums, np.diff(np.r_[starts, len(rows)]).astype(np.float64), split)


def kernel_distance(kernel: KernelSums, weights: Vectors | None = None) -> Vectors:
    """Return 100 MMD^2 for weights on the clips (draws, clips), or for weights of 1; one number a draw.

    Each mean runs over pairs of windows of different clips, a clip counted as often as its weight says but never
    paired with itself.
    """
    weights = np.ones((1, len(kernel.windows))) if weights is None else weights
    one, two = weights.copy(), weights.copy()
    one[:, kernel.split :] = 0.0
    two[:, : kernel.split] = 0.0
    within = _within(kernel, one) + _within(kernel, two)
    across = ((one @ kernel.sums) * two).sum(1) / ((one @ kernel.windows) * (two @ kernel.windows))
    return SCALE * (within - 2.0 * across)


def weighted_bootstrap(kernel: KernelSums, draws: int, seed: int) -> Vectors:
    """Return the distance under multinomial weights of the clips of either set, (draws,)."""
    generator = numpy_generator(seed, "kernel bootstrap")
    counts = (kernel.split, len(kernel.windows) - kernel.split)
    weights = [generator.multinomial(count, np.full(count, 1.0 / count), size=draws) for count in counts]
    return kernel_distance(kernel, np.concatenate(weights, axis=1).astype(np.float64))


def permutation_p(kernel: KernelSums, draws: int, seed: int) -> float:
    """Return how often a random split of all clips is at least as far apart: the p-value of "one distribution"."""
    generator = numpy_generator(seed, "kernel permutation")
    observed = kernel_distance(kernel)[0]
    total = len(kernel.windows)
    labels = np.zeros((draws, total))
    labels[:, : kernel.split] = 1.0
    labels = generator.permuted(labels, axis=1)
    others = 1.0 - labels
    across = ((labels @ kernel.sums) * others).sum(1) / ((labels @ kernel.windows) * (others @ kernel.windows))
    shuffled = SCALE * (_within(kernel, labels) + _within(kernel, others) - 2.0 * across)
    return float((1 + (shuffled >= observed).sum()) / (1 + draws))


def _within(kernel: KernelSums, weights: Vectors) -> Vectors:
    """Return the weighted mean kernel value over pairs of windows of different clips, NaN where there is no pair."""
    own = np.square(weights)
    total = ((weights @ kernel.sums) * weights).sum(1) - own @ np.diagonal(kernel.sums)
    pairs = np.square(weights @ kernel.windows) - own @ np.square(kernel.windows)
    return np.divide(total, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

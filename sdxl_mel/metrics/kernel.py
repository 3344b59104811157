"""Kernel audio distance: the unbiased squared maximum mean discrepancy with a Gaussian kernel, times 100.

The bandwidth is the median distance within the reference (as KADTK documents it; its code takes the evaluated set).
Windows of one clip are not independent draws, so pairs within a clip are left out; with one window a clip this is the
usual unbiased estimate.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from sdxl_mel.arrays import Owner, Vectors
from sdxl_mel.seeding import numpy_generator

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
    paired with itself. NaN for a draw without a pair.
    """
    weights = np.ones((1, len(kernel.windows))) if weights is None else weights
    generated, reference = slice(0, kernel.split), slice(kernel.split, None)
    one, two = weights[:, generated], weights[:, reference]
    across = ((one @ kernel.sums[generated, reference]) * two).sum(1)
    within = [
        _mean_within(((part @ kernel.sums[which, which]) * part).sum(1), np.square(part), part, which, kernel)
        for part, which in ((one, generated), (two, reference))
    ]
    pairs = (one @ kernel.windows[generated]) * (two @ kernel.windows[reference])
    return SCALE * (within[0] + within[1] - 2.0 * across / pairs)


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
    toward = labels @ kernel.sums
    away = kernel.sums.sum(0) - toward
    everything = slice(None)
    within = _mean_within((toward * labels).sum(1), labels, labels, everything, kernel)
    within += _mean_within((away * others).sum(1), others, others, everything, kernel)
    across = (toward * others).sum(1) / ((labels @ kernel.windows) * (others @ kernel.windows))
    shuffled = SCALE * (within - 2.0 * across)
    return float((1 + (shuffled >= observed).sum()) / (1 + draws))


def _mean_within(total: Vectors, squares: Vectors, weights: Vectors, which: slice, kernel: KernelSums) -> Vectors:
    """Return the mean kernel value over pairs of windows of different clips from the weighted sum over all pairs.

    `squares` are the squared weights (draws, clips) of the clips `which`. NaN where there is no pair.
    """
    windows = kernel.windows[which]
    pairs = np.square(weights @ windows) - squares @ np.square(windows)
    different = total - squares @ np.diagonal(kernel.sums)[which]
    return np.divide(different, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

"""Fréchet distance between two sets of vectors, without a matrix square root.

For centred rows A (n, d) and B (m, d) divided by sqrt(n-1) and sqrt(m-1), tr sqrt(S1 S2) is the nuclear norm of A B^T
(the sum of its singular values): exact at any rank, never complex, nothing added to a diagonal.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from sdxl_mel.arrays import Owner, Vectors
from sdxl_mel.files.evaluation import Floor, SizeCurve
from sdxl_mel.metrics.intervals import FEWEST_PARTS, MOST_JACKKNIFE_GROUPS, Interval, deal, interval_of_left_outs
from sdxl_mel.seeding import numpy_generator


@dataclass(frozen=True)
class FrechetDistance:
    """The distance and its two parts: the squared distance of the means, and what the covariances add."""

    value: float
    mean_part: float
    covariance_part: float


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and a factor F (rows, d) of the covariance, F^T F, with at most d rows."""

    mean: Vectors
    factor: Vectors

    @property
    def trace(self) -> float:
        """Return the trace of the covariance."""
        return float(np.square(self.factor).sum())


def gaussian(rows: Vectors) -> Gaussian:
    """Return the Gaussian with the mean and the covariance (ddof 1) of rows (n >= 2, d)."""
    mean = rows.mean(0)
    centred = (rows - mean) / np.sqrt(len(rows) - 1)
    if len(centred) > centred.shape[1]:
        centred = scipy.linalg.qr(centred, mode="r", overwrite_a=True, check_finite=False)[0][: centred.shape[1]]
    return Gaussian(mean, centred)


def frechet_distance(first: Gaussian, second: Gaussian) -> FrechetDistance:
    """Return |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2); the sum is clipped at 0."""
    mean_part = float(np.square(first.mean - second.mean).sum())
    nuclear = float(scipy.linalg.svdvals(first.factor @ second.factor.T, check_finite=False).sum())
    covariance_part = first.trace + second.trace - 2.0 * nuclear
    return FrechetDistance(max(0.0, mean_part + covariance_part), mean_part, covariance_part)


def distance_between(first: Vectors, second: Vectors) -> float:
    """Return the Fréchet distance between two sets of rows."""
    return frechet_distance(gaussian(first), gaussian(second)).value


def distance_change(before: Vectors, after: Vectors, reference: Vectors) -> float:
    """Return the Fréchet distance of `after` to the reference less that of `before`."""
    return distance_between(after, reference) - distance_between(before, reference)


class Moments:
    """Sum and outer sum of rows by part, so that a set without one part is a subtraction and not a second pass."""

    def __init__(self, rows: Vectors, parts: Owner) -> None:
        self._centre = rows.mean(0)
        rows = rows - self._centre
        count = int(parts.max()) + 1
        self._n = np.bincount(parts, minlength=count)
        self._sums = np.stack([rows[parts == part].sum(0) for part in range(count)])
        self._outer = np.stack([rows[parts == part].T @ rows[parts == part] for part in range(count)])
        self._all_outer = self._outer.sum(0)

    @property
    def parts(self) -> int:
        """Return the number of parts."""
        return len(self._n)

    def without(self, part: int | None) -> tuple[Vectors, Vectors]:
        """Return mean (d,) and covariance (d, d) of all rows but those of `part`."""
        n, total, outer = self._n.sum(), self._sums.sum(0), self._all_outer
        if part is not None:
            n, total, outer = n - self._n[part], total - self._sums[part], outer - self._outer[part]
        mean = total / n
        return mean + self._centre, (outer - n * np.outer(mean, mean)) / (n - 1)


def distance_from_moments(mean: Vectors, covariance: Vectors, other_mean: Vectors, other_root: Vectors) -> float:
    """Return the distance when only moments are known; `other_root` is a square root R of the other covariance, R R^T.

    tr sqrt(S1 S2) is the sum of the roots of the eigenvalues of R^T S1 R. Within 1e-7 of the exact form, and faster.
    """
    inner = other_root.T @ covariance @ other_root
    roots = np.sqrt(np.maximum(scipy.linalg.eigvalsh(inner, check_finite=False), 0.0)).sum()
    shift = np.square(mean - other_mean).sum()
    return max(0.0, float(shift + np.trace(covariance) + np.square(other_root).sum() - 2.0 * roots))


def covariance_root(covariance: Vectors) -> Vectors:
    """Return R (d, d) with R R^T = covariance, of a positive semi-definite matrix."""
    values, axes = scipy.linalg.eigh(covariance, check_finite=False)
    return axes * np.sqrt(np.maximum(values, 0.0))


def frechet_interval(rows: Vectors, owner: Owner, reference: Vectors, reference_owner: Owner, seed: int) -> Interval:
    """Return the distance with its jackknife interval over whole clips of both sets.

    The interval is for what other samples of these sizes would give; the upward bias of small samples is in the value
    and in both bounds alike, and `noise_floor` says how large it is.
    """
    value = distance_between(rows, reference)
    sets = ((rows, owner), (reference, reference_owner))
    pieces = [Moments(those, deal(list(of), MOST_JACKKNIFE_GROUPS, seed)) for those, of in sets]
    left_outs = []
    for one, other in (pieces, pieces[::-1]):
        if one.parts < FEWEST_PARTS:
            continue
        mean, covariance = other.without(None)
        root = covariance_root(covariance)
        found = [distance_from_moments(*one.without(part), mean, root) for part in range(one.parts)]
        left_outs.append(np.array(found))
    return interval_of_left_outs(value, left_outs)


def frechet_change(
    before: tuple[Vectors, Owner], after: tuple[Vectors, Owner], reference: tuple[Vectors, Owner], seed: int
) -> Interval:
    """Return the distance of `after` less that of `before`, with the jackknife interval of this difference.

    Sets are rows and the clip of each row. Clip k of both was made for the same prompt from the same seed: clips are
    left out in pairs, and those of the reference for both, so that what the two distances share cancels out.
    """
    old, new, real = (
        Moments(rows, deal(list(owner), MOST_JACKKNIFE_GROUPS, seed)) for rows, owner in (before, after, reference)
    )

    def change(part: int | None, reference_part: int | None) -> float:
        mean, covariance = real.without(reference_part)
        root = covariance_root(covariance)
        after, before = (distance_from_moments(*each.without(part), mean, root) for each in (new, old))
        return after - before

    pairs = [change(part, None) for part in range(new.parts)]
    references = [change(None, part) for part in range(real.parts)]
    interval = interval_of_left_outs(change(None, None), [np.array(pairs), np.array(references)])
    return replace(interval, method=f"paired {interval.method}")


def curve_over_size(rows: Vectors, owner: Owner, reference: Vectors, seed: int, draws: int = 4) -> SizeCurve:
    """Return the distance of subsets of clips, drawn without replacement, to the whole reference, and its 1/N line.

    The line at 1/N = 0 is a diagnostic, not an estimate to quote.
    """
    clips = int(owner.max()) + 1
    sizes = sorted({max(2, round(clips * share)) for share in (0.25, 0.4, 0.6, 0.8, 1.0)})
    target = gaussian(reference)
    values = []
    for size in sizes:
        generator = numpy_generator(seed, "fad curve", size)
        chosen = [generator.permutation(clips)[:size] for _ in range(draws if size < clips else 1)]
        subsets = [rows[np.isin(owner, members)] for members in chosen]
        values.append(float(np.mean([frechet_distance(gaussian(subset), target).value for subset in subsets])))
    limit, r_squared = line_at_zero(1.0 / np.array(sizes), np.array(values))
    return SizeCurve(
        sizes=tuple(sizes),
        values=tuple(values),
        limit=limit,
        r_squared=r_squared,
        trust_limit=len(rows) >= rows.shape[1],
    )


def line_at_zero(x: Vectors, y: Vectors) -> tuple[float | None, float | None]:
    """Return the value at x = 0 of the least-squares line through at least 3 points (x, y), and its R^2."""
    if len(x) < 3:
        return None, None
    slope, intercept = np.polyfit(x, y, 1)
    spread = np.square(y - y.mean()).sum()
    error = np.square(y - slope * x - intercept).sum()
    return float(intercept), float(1 - error / spread) if spread > 0 else None


def noise_floor(rows: Vectors, owner: Owner, clips: int, seed: int, draws: int = 6) -> Floor | None:
    """Return the mean distance between `clips` reference clips and the rest of the reference, over random splits.

    Where the reference has fewer than twice as many clips, it is split in halves (the floor is then too high). None
    where a half would have fewer than two clips.
    """
    available = int(owner.max()) + 1
    size = min(clips, available // 2)
    if size < 2:
        return None
    distances = []
    for draw in range(draws):
        order = numpy_generator(seed, "fad floor", draw).permutation(available)
        chosen = np.isin(owner, order[:size])
        distances.append(distance_between(rows[chosen], rows[~chosen]))
    return Floor(value=float(np.mean(distances)), clips=size, against=available - size)

"""95 % intervals for means, proportions, distances between sets and paired differences.

Units that are not independent (windows of a clip, clips of a prompt) are one group; the group is what is resampled.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from sdxl_mel.seeding import numpy_generator

LEVEL = 0.95
MOST_JACKKNIFE_GROUPS = 20
FEWEST_PARTS = 3
"""Two parts would give a spread from two numbers."""


@dataclass(frozen=True)
class Interval:
    """An estimate, its standard error, its 95 % bounds, and how they were made; all but `value` None if N is 1."""

    value: float
    se: float | None
    low: float | None
    high: float | None
    method: str

    def within(self, least: float, most: float = np.inf) -> "Interval":
        """Return the interval of a quantity that lies between `least` and `most`; that without bounds is the same.

        The t interval is laid around the log odds, log((x - least) / (most - x)), or where `most` is infinite around
        log(x - least), and carried back; the standard error is carried there by the delta method. For a share this is
        the logit interval of surveys (Korn and Graubard 1999, 2.7), for a cosine Fisher's z. A value on a bound has no
        such scale: its interval is cut there.
        """
        if self.low is None or self.high is None or least == -np.inf:
            return self
        over, under = self.value - least, most - self.value
        if min(over, under) <= 0:
            return replace(self, low=max(least, self.low), high=min(most, self.high))
        half = (self.high - self.value) * (1 / over + 1 / under)
        if most == np.inf:
            low, high, scale = least + over * np.exp(-half), least + over * np.exp(half), "logarithms"
        else:
            ends = scipy.special.expit(np.log(over / under) + np.array([-half, half]))
            (low, high), scale = least + (most - least) * ends, "log odds"
        return replace(self, low=float(low), high=float(high), method=f"{self.method}, on the scale of {scale}")


def student(value: float, se: float, freedom: int, method: str) -> Interval:
    """Return value ± t(freedom) se."""
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)) * se
    return Interval(value, se, value - half, value + half, method)


def mean_interval(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> Interval:
    """Return the mean with an interval that treats the values of a group as one draw.

    The standard error is the cluster-robust one of a mean, sqrt(G/(G-1) sum_g (n_g (mean_g - mean))^2) / N, with
    G - 1 degrees of freedom. With a single group its values are taken as the draws.
    """
    numbers = np.asarray(values, dtype=np.float64)
    value = float(numbers.mean())
    codes = group_codes(groups if groups is not None and len(set(groups)) > 1 else range(len(numbers)))
    count = int(codes.max()) + 1
    if count < 2:
        return Interval(value, None, None, None, "one draw: no interval")
    sums = np.bincount(codes, weights=numbers - value)
    se = float(np.sqrt(count / (count - 1) * np.square(sums).sum())) / len(numbers)
    unit = "clips" if count == len(numbers) else "prompts"
    return student(value, se, count - 1, f"t interval over {count} {unit}")


def proportion_interval(hits: int, total: int) -> Interval:
    """Return hits / total with Wilson's interval."""
    value = hits / total
    bounds = scipy.stats.binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    se = float(np.sqrt(value * (1 - value) / total))
    return Interval(value, se, float(bounds.low), float(bounds.high), "Wilson's interval")


def share_interval(hits: ArrayLike, groups: Sequence[Hashable] | None = None) -> Interval:
    """Return the share of hits (0 or 1) with an interval inside 0..1 that treats the values of a group as one draw.

    The t interval of the groups on the scale of log odds; Wilson's where each value is a draw or the groups have no
    spread to measure, over the groups where all values are equal.
    """
    numbers = np.asarray(hits, dtype=np.float64)
    draws = len(set(groups)) if groups is not None else len(numbers)
    if np.ptp(numbers) == 0:
        return proportion_interval(round(numbers[0]) * draws, draws)
    interval = mean_interval(numbers, groups)
    if draws in (1, len(numbers)) or not interval.se:
        return proportion_interval(round(numbers.sum()), len(numbers))
    return interval.within(0.0, 1.0)


def jackknife_interval(
    statistic: Callable[[Sequence[NDArray[np.bool_]]], float], groups: Sequence[Sequence[Hashable]], seed: int
) -> Interval:
    """Return a statistic of one or more sets with a delete-a-group jackknife interval.

    `statistic` takes one mask of kept rows for each set; `groups` names the group of every row of each set. Each set is
    dealt into at most 20 parts of whole groups; the variances of the sets add. Unlike the bootstrap it never repeats a
    row, which would bias distances between sets (a repeated row has distance 0 to itself).
    """
    everything = [np.ones(len(rows), dtype=bool) for rows in groups]
    value = statistic(everything)
    left_outs = []
    for index, rows in enumerate(groups):
        parts = deal(rows, MOST_JACKKNIFE_GROUPS, seed)
        count = int(parts.max()) + 1
        if count < FEWEST_PARTS:
            continue
        masks = [*everything]
        left_out = np.empty(count)
        for part in range(count):
            masks[index] = parts != part
            left_out[part] = statistic(masks)
        left_outs.append(left_out)
    return interval_of_left_outs(value, left_outs)


def tied_interval(
    statistic: Callable[..., float], sets: Sequence[tuple[NDArray[Any], NDArray[np.integer]]], seed: int
) -> Interval:
    """Return a statistic of sets of rows with the jackknife interval of clips that belong together.

    Sets are rows and the clip of each row; clip k of every set stands for the same thing, such as one tile after two
    decoders and before them, and is left out of all at once, so that what they share cancels out.
    """
    clips = max(int(owner.max()) for _, owner in sets) + 1

    def of_kept(masks: Sequence[NDArray[np.bool_]]) -> float:
        return statistic(*(rows[masks[0][owner]] for rows, owner in sets))

    return jackknife_interval(of_kept, [range(clips)], seed)


def interval_of_left_outs(value: float, left_outs: Sequence[NDArray[np.float64]]) -> Interval:
    """Return the jackknife interval from the statistic without each part; one array for each independent set.

    The degrees of freedom are Welch and Satterthwaite's. Sets of fewer than 3 parts add nothing.
    """
    counts = np.array([len(values) for values in left_outs if len(values) >= FEWEST_PARTS])
    if not counts.size:
        return Interval(value, None, None, None, "fewer than 3 clips: no interval")
    spreads = [np.square(values - values.mean()).sum() for values in left_outs if len(values) >= FEWEST_PARTS]
    variances = (counts - 1) / counts * np.array(spreads)
    spread_of_spreads = float((np.square(variances) / (counts - 1)).sum())
    freedom = int(variances.sum() ** 2 / spread_of_spreads) if spread_of_spreads > 0 else int(counts.min() - 1)
    method = "delete-a-group jackknife over clips, t interval"
    return student(value, float(np.sqrt(variances.sum())), freedom, method)


def paired_interval(first: ArrayLike, second: ArrayLike) -> Interval:
    """Return mean(second - first) with its t interval; the values are paired in order."""
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return replace(mean_interval(difference), method=f"paired t over {len(difference)} prompts")


def deal(groups: Sequence[Hashable], most: int, seed: int) -> NDArray[np.intp]:
    """Return the part, 0 .. parts-1, of every row: whole groups dealt evenly in a random order."""
    codes = group_codes(groups)
    count = int(codes.max()) + 1
    parts = np.empty(count, dtype=np.intp)
    parts[numpy_generator(seed, "deal").permutation(count)] = np.arange(count) % min(most, count)
    return parts[codes]


def group_codes(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    """Return groups as numbers in the order in which they first appear."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(group, len(known)) for group in groups], dtype=np.intp)

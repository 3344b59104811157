"""How different the clips of a set are from each other: overall, within a prompt, and between prompts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from sdxl_mel.arrays import Vectors
from sdxl_mel.metrics.intervals import Interval, group_codes, jackknife_interval, mean_interval
from sdxl_mel.seeding import numpy_generator


def pairwise_distance(units: Vectors) -> float:
    """Return the mean cosine distance over pairs of unit rows (n >= 2, d).

    It equals the trace of their covariance (ddof 1): two names for one number.
    """
    n = len(units)
    return float(1.0 - (np.square(units.sum(0)).sum() - np.square(units).sum()) / (n * (n - 1)))


def pairwise_interval(units: Vectors, groups: Sequence[Hashable], seed: int) -> Interval:
    """Return the mean pairwise distance with a jackknife interval over groups (prompts, or clips)."""
    return jackknife_interval(lambda kept: pairwise_distance(units[kept[0]]), [groups], seed).within(0.0, 2.0)


def vendi_score(units: Vectors, order: float = 1.0) -> float:
    """Return the effective number of different rows, 1..n: exp of the Rényi entropy of the eigenvalues of K/n.

    K is the cosine Gram matrix; order 1 is the Vendi score (Friedman and Dieng, 2023), order 2 is RKE.
    """
    n = len(units)
    gram = units @ units.T if n <= units.shape[1] else units.T @ units
    if order == 2.0:
        return float(n * n / np.square(gram).sum())
    values = scipy.linalg.eigvalsh(gram / n, check_finite=False)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


@dataclass(frozen=True)
class PromptDiversity:
    """The mean distance between the clips of one prompt; `collapsed` if it is far below that of the other prompts."""

    prompt: str
    clips: int
    distance: float
    collapsed: bool


COLLAPSE_SHARE = 0.25
"""A prompt whose clips differ less than a quarter as much as usual has collapsed."""


def diversity_by_prompt(units: Vectors, prompts: Sequence[str], usual: float | None = None) -> list[PromptDiversity]:
    """Return the diversity of every prompt with at least two clips, in the order of first appearance.

    `usual` is what to compare with, by default the median over these prompts (needs three).
    """
    members: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(index)
    distances = {prompt: pairwise_distance(units[rows]) for prompt, rows in members.items() if len(rows) > 1}
    if usual is None:
        usual = float(np.median(list(distances.values()))) if len(distances) > 2 else 0.0
    return [
        PromptDiversity(prompt, len(members[prompt]), distance, distance < COLLAPSE_SHARE * usual)
        for prompt, distance in distances.items()
    ]


def within_interval(prompts: Sequence[PromptDiversity]) -> Interval:
    """Return the mean over prompts of the distance within a prompt."""
    return mean_interval([prompt.distance for prompt in prompts]).within(0.0, 2.0)


def between_prompts(units: Vectors, prompts: Sequence[str]) -> float:
    """Return the mean cosine distance over pairs of clips of different prompts (at least two prompts)."""
    codes = group_codes(prompts)
    sums = np.zeros((int(codes.max()) + 1, units.shape[1]))
    np.add.at(sums, codes, units)
    counts = np.bincount(codes)
    similarity = np.square(units.sum(0)).sum() - np.square(sums).sum()
    return float(1.0 - similarity / (len(units) ** 2 - np.square(counts).sum()))


def subset_mean(units: Vectors, size: int, seed: int, draws: int = 10) -> tuple[float, float]:
    """Return the mean pairwise distance and Vendi score of random subsets of `size` rows: a set's own yardstick."""
    if size >= len(units):
        return pairwise_distance(units), vendi_score(units)
    chosen = [numpy_generator(seed, "subset", draw).permutation(len(units))[:size] for draw in range(draws)]
    return (
        float(np.mean([pairwise_distance(units[rows]) for rows in chosen])),
        float(np.mean([vendi_score(units[rows]) for rows in chosen])),
    )

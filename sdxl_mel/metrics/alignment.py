"""How well clips match their prompts, from a matrix of scores (clips, prompts).

Raw means differ from model to model; matched minus shuffled, and retrieval, do not need to know the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Vectors
from sdxl_mel.metrics.intervals import Interval, mean_interval, share_interval
from sdxl_mel.seeding import numpy_generator


def matched_scores(scores: Vectors, truth: NDArray[np.intp]) -> Vectors:
    """Return the score of every clip against its own prompt, (clips,); `truth` is the column of that prompt."""
    return scores[np.arange(len(truth)), truth]


@dataclass(frozen=True)
class Gap:
    """Mean matched score minus the mean score against the other prompts, its interval, and its permutation p-value."""

    interval: Interval
    shuffled: float
    p: float
    others: Vectors
    """The mean score of each clip against the other prompts, (clips,)."""


def matched_gap(scores: Vectors, truth: NDArray[np.intp], draws: int, seed: int) -> Gap:
    """Return the gap for at least two prompts.

    p is the share of random re-pairings of clips with the prompts in use that score at least as high.
    """
    matched = matched_scores(scores, truth)
    counts = np.bincount(truth, minlength=scores.shape[1]).astype(np.float64)
    others = np.repeat(counts[None], len(truth), axis=0)
    others[np.arange(len(truth)), truth] = 0.0
    shuffled = (scores * others).sum(1) / others.sum(1)
    generator = numpy_generator(seed, "gap permutation")
    pairings = generator.permuted(np.repeat(truth[None], draws, axis=0), axis=1)
    means = scores[np.arange(len(truth)), pairings].mean(1)
    p = float((1 + (means >= matched.mean() - 1e-12).sum()) / (1 + draws))
    return Gap(mean_interval(matched - shuffled, truth.tolist()), float(shuffled.mean()), p, shuffled)


@dataclass(frozen=True)
class Retrieval:
    """Finding the right one among all by score: recall at 1 and 5, mean reciprocal rank, median rank, and chance."""

    recall_1: Interval
    recall_5: Interval
    reciprocal_rank: Interval
    median_rank: float
    chance_1: float
    chance_5: float


def text_retrieval(scores: Vectors, truth: NDArray[np.intp]) -> Retrieval:
    """Find each clip's prompt among all distinct prompts; equal scores share their mean rank."""
    ranks = _ranks(scores, truth)
    prompts = scores.shape[1]
    return _retrieval(ranks, truth.tolist(), 1 / prompts, min(1.0, 5 / prompts))


def audio_retrieval(scores: Vectors, truth: NDArray[np.intp]) -> Retrieval:
    """Find a clip of each prompt among all clips; the best placed of its clips counts."""
    clips, used = scores.shape[0], np.unique(truth)
    ranks = np.array([_best_rank(scores[:, column], truth == column) for column in used])
    hits = np.array([(truth == column).sum() for column in used])
    return _retrieval(ranks, None, float(np.mean(hits / clips)), float(np.mean(_chance(hits, clips, 5))))


def r_precision(scores: Vectors, truth: NDArray[np.intp], others: int, draws: int, seed: int) -> float:
    """Return how often the true prompt beats `others` random other prompts; ties count half."""
    generator = numpy_generator(seed, "r-precision")
    prompts = scores.shape[1]
    hits = 0.0
    for _ in range(draws):
        keys = generator.random((len(truth), prompts))
        keys[np.arange(len(truth)), truth] = np.inf
        sampled = np.argpartition(keys, others - 1, axis=1)[:, :others]
        best = np.take_along_axis(scores, sampled, axis=1).max(1)
        own = matched_scores(scores, truth)
        hits += float((own > best).mean() + 0.5 * (own == best).mean())
    return hits / draws


def mean_by_prompt(values: Vectors, prompts: Sequence[str]) -> dict[str, float]:
    """Return the mean value of each prompt, in the order of first appearance."""
    members: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        members.setdefault(prompt, []).append(float(value))
    return {prompt: float(np.mean(several)) for prompt, several in members.items()}


def _ranks(scores: Vectors, truth: NDArray[np.intp]) -> Vectors:
    own = matched_scores(scores, truth)[:, None]
    return 1.0 + (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)


def _best_rank(column: Vectors, own: NDArray[np.bool_]) -> float:
    best = column[own].max()
    return float(1.0 + (column[~own] > best).sum() + 0.5 * (column[~own] == best).sum())


def _chance(hits: NDArray[np.intp], total: int, most: int) -> Vectors:
    """Return the chance that at least one of `hits` marked items is among `most` drawn of `total`."""
    missed = np.ones(len(hits))
    for drawn in range(min(most, total)):
        missed *= np.maximum(total - hits - drawn, 0) / (total - drawn)
    return 1.0 - missed


def _retrieval(ranks: Vectors, groups: list[int] | None, chance_1: float, chance_5: float) -> Retrieval:
    return Retrieval(
        recall_1=share_interval(ranks <= 1.0, groups),
        recall_5=share_interval(ranks <= 5.0, groups),
        reciprocal_rank=mean_interval(1.0 / ranks, groups).within(0.0, 1.0),
        median_rank=float(np.median(ranks)),
        chance_1=chance_1,
        chance_5=chance_5,
    )

"""Are generated clips copies of training tracks: suspects by embedding, confirmed by their sound."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.evaluation.embeddings import Embeddings, Metrics, SetEmbeddings
from sdxl_mel.files.evaluation import Absent, Metric
from sdxl_mel.metrics.intervals import Interval, mean_interval, proportion_interval
from sdxl_mel.metrics.memorization import (
    COPY_CORRELATION,
    Neighbour,
    authenticity,
    copy_correlation,
    nearest_neighbours,
    threshold_of,
)

FEWEST_BASELINE = 5
MOST_COMPARED = 200
"""Pairs of sounds that are compared at most; more suspects than that need no more proof."""


@dataclass(frozen=True)
class Pair:
    """A generated clip and its nearest training clip; `correlation` is None where the sounds were not compared."""

    clip: str
    training: str
    cosine: float
    correlation: float | None

    @property
    def is_copy(self) -> bool:
        """Say whether the sounds agree too."""
        return self.correlation is not None and self.correlation >= COPY_CORRELATION


@dataclass(frozen=True)
class Training:
    """The names of the training clips, which of the reference clips are none of them, and how to read clips.

    `samples` returns mono samples at 16 kHz of clip i of the generated set (False) or of the training set (True).
    """

    names: list[str]
    held_out: list[int]
    samples: Callable[[bool, int], Float]


def memorization(embeddings: Embeddings, training: Training) -> tuple[Metrics, list[Absent], list[Pair]]:
    """Return the metrics, those that are absent, and every clip with its nearest training clip, nearest first."""
    others = embeddings.training
    if others is None or len(others) < 2:
        return {}, [Absent(metric="copies", why="needs 2 usable training clips")], []
    generated = nearest_neighbours(embeddings.generated.rows, embeddings.generated.owner, others.rows, others.owner)
    within = nearest_neighbours(others.rows, others.owner, others.rows, others.owner, same=True)
    baseline, source = _baseline(embeddings, others, training.held_out, within)
    threshold = threshold_of(baseline)
    order = np.argsort([-one.cosine for one in generated], kind="stable")
    suspects = [int(index) for index in order if generated[index].cosine > threshold]
    compared = set(suspects[:MOST_COMPARED])
    pairs = [_pair(embeddings, training, int(index), generated[index], index in compared) for index in order]
    copies = [pair for pair in pairs if pair.is_copy]
    rate = proportion_interval(len(copies), len(generated))
    details: dict[str, object] = {
        "threshold": threshold,
        "baseline": source,
        "baseline_clips": len(baseline),
        "correlation_threshold": COPY_CORRELATION,
        "suspects": len(suspects),
        "pairs": [[pair.clip, pair.training, pair.cosine, pair.correlation] for pair in copies],
    }
    # They are the nearest pairs.
    if unknown := sum(pair.correlation is None for pair in pairs[: len(suspects)]):
        details["suspects_not_compared"] = unknown
    meaning = (
        "Generated clips that are copies of a training clip: nearer to it than held-out music comes to the training "
        "set, and with the same mel picture when aligned. Never concluded from FAD."
    )
    count = Interval(float(len(copies)), None, None, None, "nearest neighbour, then aligned mel correlation")
    authentic = proportion_interval(round(authenticity(generated, within) * len(generated)), len(generated))
    nearer = "Share of clips no nearer to their nearest training clip than that is to its own (Alaa et al., 2022)."
    metrics = {
        "copies": embeddings.metric(count, meaning, better="lower", details=details),
        "copy_share": embeddings.metric(rate, "Copies over generated clips.", better="lower"),
        "nearest_training": _nearest(generated, baseline, embeddings),
        "authenticity": embeddings.metric(authentic, nearer, better="higher"),
    }
    return metrics, [], pairs


def _baseline(
    embeddings: Embeddings, training: SetEmbeddings, held_out: list[int], within: list[Neighbour]
) -> tuple[list[Neighbour], str]:
    """Return how near music that was not trained on comes to the training set, and what that music was."""
    if len(held_out) < FEWEST_BASELINE:
        return within, "training clips against the other training clips"
    real = embeddings.reference
    found = nearest_neighbours(real.rows, real.owner, training.rows, training.owner)
    return [found[index] for index in held_out], "reference clips that are not in the training set"


def _pair(embeddings: Embeddings, training: Training, index: int, one: Neighbour, compare: bool) -> Pair:
    correlation = None
    if compare:
        try:
            correlation = copy_correlation(training.samples(False, index), training.samples(True, one.clip))
        except SdxlMelError:
            correlation = None  # The file went away since it was embedded.
    return Pair(embeddings.names[index], training.names[one.clip], one.cosine, correlation)


def _nearest(generated: list[Neighbour], baseline: list[Neighbour], embeddings: Embeddings) -> Metric:
    cosines = np.array([one.cosine for one in generated])
    held_out = np.array([one.cosine for one in baseline])
    details = {
        "baseline_mean": float(held_out.mean()),
        "baseline_95": float(np.quantile(held_out, 0.95)),
        "highest": float(cosines.max()),
    }
    meaning = "Mean cosine of a clip to its nearest training window; well above `baseline_mean` hints at memorisation."
    interval = mean_interval(cosines, embeddings.groups).within(-1.0, 1.0)
    return embeddings.metric(interval, meaning, better="lower", details=details)

"""Are generated clips copies of training tracks: suspects by embedding, confirmed by their sound."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.evaluation.embeddings import Cloud, Metrics, Space, measured
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
    ratio: float
    correlation: float | None

    @property
    def is_copy(self) -> bool:
        """Say whether the sounds agree too."""
        return self.correlation is not None and self.correlation >= COPY_CORRELATION


@dataclass(frozen=True)
class Training:
    """The training clips in the same space, which of the reference clips are none of them, and how to hear clips.

    `listen` returns mono samples at 16 kHz of clip i of the generated set (False) or of the training set (True).
    """

    cloud: Cloud
    names: list[str]
    held_out: list[int]
    listen: Callable[[bool, int], Float]


def novelty(space: Space, training: Training) -> tuple[Metrics, list[Absent], list[Pair]]:
    """Return the metrics, those that are absent, and every clip with its nearest training clip, nearest first."""
    if len(training.cloud) < 2:
        return {}, [Absent(metric="copies", why="needs 2 usable training clips")], []
    others = training.cloud
    generated = nearest_neighbours(space.generated.rows, space.generated.owner, others.rows, others.owner)
    within = nearest_neighbours(others.rows, others.owner, others.rows, others.owner, same=True)
    baseline, source = _baseline(space, training, within)
    threshold = threshold_of(baseline)
    order = np.argsort([-one.cosine for one in generated], kind="stable")
    suspects = [int(index) for index in order if generated[index].cosine > threshold]
    compared = set(suspects[:MOST_COMPARED])
    pairs = [_pair(space, training, int(index), generated[index], index in compared) for index in order]
    copies = [pair for pair in pairs if pair.is_copy]
    rate = proportion_interval(len(copies), len(generated))
    details = {
        "threshold": threshold,
        "baseline": source,
        "baseline_clips": len(baseline),
        "correlation_threshold": COPY_CORRELATION,
        "suspects": len(suspects),
        "pairs": [[pair.clip, pair.training, pair.cosine, pair.correlation] for pair in copies],
    }
    meaning = (
        "Generated clips that are copies of a training clip: nearer to it than held-out music comes to the training "
        "set, and with the same mel picture when aligned. Never concluded from FAD."
    )
    count = Interval(float(len(copies)), None, None, None, "nearest neighbour, then aligned mel correlation")
    return (
        {
            "copies": measured(count, space, meaning, better="lower", details=details),
            "copy_share": measured(rate, space, "Copies over generated clips.", better="lower"),
            "nearest_training": _nearest(generated, baseline, space),
            "authenticity": _authenticity(generated, within, space),
        },
        [],
        pairs,
    )


def _baseline(space: Space, training: Training, within: list[Neighbour]) -> tuple[list[Neighbour], str]:
    """Return how near music that was not trained on comes to the training set, and what that music was."""
    held_out = set(training.held_out)
    if len(held_out) < FEWEST_BASELINE:
        return within, "training clips against the other training clips"
    rows = space.reference
    found = nearest_neighbours(rows.rows, rows.owner, training.cloud.rows, training.cloud.owner)
    return [found[index] for index in sorted(held_out)], "reference clips that are not in the training set"


def _pair(space: Space, training: Training, index: int, one: Neighbour, compare: bool) -> Pair:
    correlation = None
    if compare:
        try:
            correlation = copy_correlation(training.listen(False, index), training.listen(True, one.clip))
        except SdxlMelError:
            correlation = None  # The file went away since it was embedded.
    ratio = (1.0 - one.cosine) / max(1.0 - one.second, 1e-12)
    return Pair(space.names[index], training.names[one.clip], one.cosine, ratio, correlation)


def _nearest(generated: list[Neighbour], baseline: list[Neighbour], space: Space) -> Metric:
    cosines = np.array([one.cosine for one in generated])
    held_out = np.array([one.cosine for one in baseline])
    details = {
        "baseline_mean": float(held_out.mean()),
        "baseline_95": float(np.quantile(held_out, 0.95)),
        "highest": float(cosines.max()),
    }
    meaning = "Mean cosine of a clip to its nearest training window; well above `baseline_mean` hints at memorisation."
    return measured(
        mean_interval(cosines, space.groups).clamped(-1.0, 1.0), space, meaning, better="lower", details=details
    )


def _authenticity(generated: list[Neighbour], within: list[Neighbour], space: Space) -> Metric:
    share = authenticity(generated, within)
    interval = proportion_interval(round(share * len(generated)), len(generated))
    meaning = "Share of clips no nearer to their nearest training clip than that is to its own (Alaa et al., 2022)."
    return measured(interval, space, meaning, better="higher")

"""The means over clips of what can be wrong with the sound itself, whatever its music."""

from collections.abc import Sequence

import numpy as np

from sdxl_mel.evaluation.embeddings import Metrics, metric_of
from sdxl_mel.metrics.intervals import mean_interval
from sdxl_mel.metrics.signal_checks import FACTS, Facts


def signal_checks(generated: Sequence[Facts], reference: Sequence[Facts], groups: Sequence[str]) -> Metrics:
    """Return the mean of each fact over the generated clips, with the reference's beside it; absent where unknown."""
    metrics: Metrics = {}
    for fact in FACTS:
        known = [(value, group) for each, group in zip(generated, groups) if (value := each[fact.name]) is not None]
        if not fact.metric or not known:
            continue
        values = [value for value, _ in known]
        beside = [value for each in reference if (value := each[fact.name]) is not None]
        metrics[fact.metric] = metric_of(
            mean_interval(values, [group for _, group in known]).clamped(fact.least),
            fact.meaning,
            n=len(values),
            better=fact.better,
            details={"worst": max(values), "reference": float(np.mean(beside)) if beside else None},
        )
    return metrics

"""What can be wrong with the sound itself, whatever its music: silence, clipping, loudness, bandwidth, consistency."""

from collections.abc import Callable, Sequence

import numpy as np

from sdxl_mel.evaluation.embeddings import Metrics
from sdxl_mel.files.evaluation import Metric
from sdxl_mel.metrics.intervals import mean_interval
from sdxl_mel.metrics.signal_checks import Facts

Reading = Callable[[Facts], float | None]

CHECKS: dict[str, tuple[Reading, str, str]] = {
    "silence": (lambda facts: facts.silent, "lower", "Mean share of the time below -60 dBFS."),
    "clipping": (lambda facts: facts.clipped, "lower", "Mean share of samples in runs of three or more at full scale."),
    "offset": (lambda facts: facts.offset, "lower", "Mean of the constant part of the signal, full scale = 1."),
    "loudness": (lambda facts: facts.lufs, "", "Mean integrated loudness in LUFS (ITU-R BS.1770-4)."),
    "rolloff": (lambda facts: facts.rolloff, "", "Mean frequency in Hz below which 95 % of the energy lies."),
    "consistency": (
        lambda facts: facts.consistency,
        "lower",
        "RMSE (of 1.0) between a picture and the picture of its own sound: how far it is from being a spectrogram.",
    ),
    "seams": (
        lambda facts: facts.seam,
        "lower",
        "Mean z-score of the change of spectrum where tiles may meet, in pictures longer than a tile; 3 is heard.",
    ),
}
UNBOUNDED = {"loudness", "seams"}
"""May be negative."""


def signal_checks(generated: Sequence[Facts], reference: Sequence[Facts], groups: Sequence[str]) -> Metrics:
    """Return the mean of each fact over the generated clips, with the reference's beside it; absent where unknown."""
    metrics: Metrics = {}
    for name, (reading, better, meaning) in CHECKS.items():
        known = [(value, group) for facts, group in zip(generated, groups) if (value := reading(facts)) is not None]
        if not known:
            continue
        values = [value for value, _ in known]
        interval = mean_interval(values, [group for _, group in known])
        if name not in UNBOUNDED:
            interval = interval.clamped(0.0)
        beside = [value for facts in reference if (value := reading(facts)) is not None]
        metrics[name] = Metric.model_validate(
            {
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "se": interval.se,
                "n": len(values),
                "better": better or None,
                "method": interval.method,
                "meaning": meaning,
                "details": {"worst": max(values), "reference": float(np.mean(beside)) if beside else None},
            }
        )
    return metrics

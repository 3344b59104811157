"""Are the clips different from each other: overall, within each prompt, between prompts, and beside the reference."""

import numpy as np

from sdxl_mel.evaluation.embeddings import Metrics, Space, measured
from sdxl_mel.files.evaluation import Absent, Metric
from sdxl_mel.metrics.diversity import (
    COLLAPSE_SHARE,
    PromptSpread,
    between_prompts,
    pairwise_distance,
    pairwise_interval,
    spread_by_prompt,
    subset_mean,
    vendi_score,
    within_interval,
)
from sdxl_mel.metrics.intervals import Interval
from sdxl_mel.metrics.outliers import FEWEST, NEAREST, prdc
from sdxl_mel.metrics.verbal_grades import band

COLLAPSED_RATIO = 0.25
"""Less than a quarter of the reference's spread: the whole set has collapsed."""


def spread(space: Space) -> tuple[Metrics, list[Absent], list[str]]:
    """Return the metrics, those that are absent, and warnings about collapse."""
    if len(space.generated) < 2:
        return {}, [Absent(metric="diversity", why="needs 2 usable generated clips")], []
    metrics = _overall(space) | _vendi(space)
    by_prompt, absent, warnings = _by_prompt(space)
    metrics |= by_prompt
    ratio = metrics.get("diversity_ratio")
    if ratio is not None and ratio.value < COLLAPSED_RATIO:
        warnings.insert(0, f"mode collapse: the clips differ {ratio.value:.0%} as much as equally many reference clips")
    if min(len(space.generated), len(space.reference)) >= FEWEST:
        metrics |= _prdc(space)
    else:
        why = f"balls around fifth neighbours need {FEWEST} clips a side"
        absent += [Absent(metric=name, why=why) for name in ("precision", "recall", "density", "coverage")]
    return metrics, absent, warnings


def _overall(space: Space) -> Metrics:
    clips = space.generated.clips
    interval = pairwise_interval(clips, space.groups, space.seed)
    word = band("diversity", space.family, interval.value, interval.low, interval.high)
    metrics = {
        "diversity": measured(
            interval,
            space,
            "Mean cosine distance over pairs of clips; the trace of their covariance is the same number.",
            better="higher",
            band=word.word if word else None,
            band_span=word.spans if word else (),
            no_band=word.why_none if word else None,
        )
    }
    if len(space.reference) > 1:
        own, _ = subset_mean(space.reference.clips, len(clips), space.seed)
        if own > 0:
            metrics["diversity_ratio"] = measured(
                _divided(interval, own),
                space,
                "Diversity over that of equally many reference clips; 1 is as varied, far below is mode collapse.",
                details={"reference": own},
            )
    return metrics


def _vendi(space: Space) -> Metrics:
    clips = space.generated.clips
    value = vendi_score(clips)
    reference = subset_mean(space.reference.clips, len(clips), space.seed)[1] if len(space.reference) > 1 else None
    details = {
        "share_of_n": value / len(clips),
        "order_2": vendi_score(clips, order=2.0),
        "reference_at_equal_n": reference,
        "ratio": value / reference if reference else None,
    }
    meaning = "Vendi score: the effective number of different clips, 1..N; it grows with N, so compare the ratio."
    interval = Interval(value, None, None, None, "exp of the entropy of the eigenvalues of the cosine Gram matrix")
    return {"vendi": measured(interval, space, meaning, better="higher", details=details)}


def _by_prompt(space: Space) -> tuple[Metrics, list[Absent], list[str]]:
    chosen = space.prompted
    prompts = [space.prompts[index] or "" for index in chosen]
    clips = space.generated.clips[chosen]
    metrics: Metrics = {}
    absent, warnings = [], []
    spreads = spread_by_prompt(clips, prompts) if chosen else []
    if spreads:
        metrics["diversity_within"] = _within(spreads, space)
        warnings = [
            f"prompt {each.prompt!r} has collapsed: its {each.clips} clips differ {each.distance:.3g}, under "
            f"{COLLAPSE_SHARE:.0%} of the median prompt"
            for each in spreads
            if each.collapsed
        ]
    else:
        absent.append(Absent(metric="diversity_within", why="needs a prompt with 2 clips (other seeds)"))
    if len(set(prompts)) > 1:
        interval = Interval(between_prompts(clips, prompts), None, None, None, "mean over pairs of different prompts")
        meaning = (
            "Mean cosine distance between clips of different prompts; no more than within means prompts are ignored."
        )
        metrics["diversity_between"] = measured(interval, space, meaning, n=len(chosen))
    else:
        absent.append(Absent(metric="diversity_between", why="needs 2 different prompts"))
    return metrics, absent, warnings


def _within(spreads: list[PromptSpread], space: Space) -> Metric:
    return measured(
        within_interval(spreads),
        space,
        "Mean cosine distance between the clips of one prompt, averaged over prompts; near 0 is one answer per prompt.",
        n=len(spreads),
        unit="prompts",
        better="higher",
        by_prompt={each.prompt: each.distance for each in spreads},
        details={"collapsed": [each.prompt for each in spreads if each.collapsed]},
    )


def _prdc(space: Space) -> Metrics:
    found = prdc(space.reference.clips, space.generated.clips)
    method = f"{NEAREST}-nearest-neighbour balls, float64"
    meanings = {
        "precision": "Share of generated clips inside the reference.",
        "recall": "Share of reference clips inside the generated set.",
        "density": "How deep inside the reference the generated clips lie; 1 is typical, more is possible.",
        "coverage": "Share of reference neighbourhoods that hold a generated clip; collapse lowers it.",
    }
    return {
        name: measured(Interval(getattr(found, name), None, None, None, method), space, meaning, better="higher")
        for name, meaning in meanings.items()
    }


def _divided(interval: Interval, by: float) -> Interval:
    parts = (None if value is None else value / by for value in (interval.se, interval.low, interval.high))
    se, low, high = parts
    return Interval(interval.value / by, se, low, high, f"{interval.method}; the reference taken as fixed")


def reference_spread(space: Space) -> float | None:
    """Return the mean pairwise distance of the whole reference set."""
    return pairwise_distance(space.reference.clips) if len(space.reference) > 1 else None


def distances(space: Space) -> np.ndarray:
    """Return the cosine distances between generated clips, (n, n)."""
    return np.asarray(1.0 - space.generated.clips @ space.generated.clips.T)

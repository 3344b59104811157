"""Are the clips different from each other: overall, within each prompt, between prompts, and beside the reference."""

from sdxl_mel.evaluation.embeddings import Embeddings, Metrics
from sdxl_mel.files.evaluation import Absent
from sdxl_mel.metrics.diversity import (
    COLLAPSE_SHARE,
    between_prompts,
    diversity_by_prompt,
    pairwise_interval,
    subset_mean,
    vendi_score,
    within_interval,
)
from sdxl_mel.metrics.grades import grade
from sdxl_mel.metrics.intervals import Interval
from sdxl_mel.metrics.outliers import FEWEST, NEAREST, prdc

COLLAPSED_RATIO = 0.25
"""Less than a quarter of the reference's diversity: the whole set has collapsed."""


def diversity(embeddings: Embeddings) -> tuple[Metrics, list[Absent], list[str]]:
    """Return the metrics, those that are absent, and warnings about collapse."""
    if len(embeddings.generated) < 2:
        return {}, [Absent(metric="diversity", why="needs 2 usable generated clips")], []
    metrics = _overall(embeddings) | _vendi(embeddings)
    by_prompt, absent, warnings = _by_prompt(embeddings)
    metrics |= by_prompt
    ratio = metrics.get("diversity_ratio")
    if ratio is not None and ratio.value < COLLAPSED_RATIO:
        warnings.insert(0, f"mode collapse: the clips differ {ratio.value:.0%} as much as equally many reference clips")
    if min(len(embeddings.generated), len(embeddings.reference)) >= FEWEST:
        metrics |= _prdc(embeddings)
    else:
        why = f"balls around fifth neighbours need {FEWEST} clips a side"
        absent += [Absent(metric=name, why=why) for name in ("precision", "recall", "density", "coverage")]
    return metrics, absent, warnings


def _overall(embeddings: Embeddings) -> Metrics:
    clips = embeddings.generated.clips
    interval = pairwise_interval(clips, embeddings.groups, embeddings.seed)
    word = grade("diversity", embeddings.family, interval.value, interval.low, interval.high)
    meaning = "Mean cosine distance over pairs of clips; the trace of their covariance is the same number."
    metrics = {"diversity": embeddings.metric(interval, meaning, better="higher", grade=word)}
    if len(embeddings.reference) > 1:
        own, _ = subset_mean(embeddings.reference.clips, len(clips), embeddings.seed)
        if own > 0:
            metrics["diversity_ratio"] = embeddings.metric(
                _divided(interval, own),
                "Diversity over that of equally many reference clips; 1 is as varied, far below is mode collapse.",
                details={"reference": own},
            )
    return metrics


def _vendi(embeddings: Embeddings) -> Metrics:
    clips, real = embeddings.generated.clips, embeddings.reference
    value = vendi_score(clips)
    reference = subset_mean(real.clips, len(clips), embeddings.seed)[1] if len(real) > 1 else None
    details = {
        "share_of_n": value / len(clips),
        "order_2": vendi_score(clips, order=2.0),
        "reference_at_equal_n": reference,
        "ratio": value / reference if reference else None,
    }
    meaning = "Vendi score: the effective number of different clips, 1..N; it grows with N, so compare the ratio."
    interval = Interval(value, None, None, None, "exp of the entropy of the eigenvalues of the cosine Gram matrix")
    return {"vendi": embeddings.metric(interval, meaning, better="higher", details=details)}


def _by_prompt(embeddings: Embeddings) -> tuple[Metrics, list[Absent], list[str]]:
    chosen = embeddings.prompted
    prompts = [embeddings.prompts[index] or "" for index in chosen]
    clips = embeddings.generated.clips[chosen]
    metrics: Metrics = {}
    absent, warnings = [], []
    by_prompt = diversity_by_prompt(clips, prompts) if chosen else []
    if by_prompt:
        metrics["diversity_within"] = embeddings.metric(
            within_interval(by_prompt),
            "Mean cosine distance between the clips of one prompt, averaged over prompts; near 0 is one answer per "
            "prompt.",
            n=len(by_prompt),
            unit="prompts",
            better="higher",
            by_prompt={each.prompt: each.distance for each in by_prompt},
            details={"collapsed": [each.prompt for each in by_prompt if each.collapsed]},
        )
        warnings = [
            f"prompt {each.prompt!r} has collapsed: its {each.clips} clips differ {each.distance:.3g}, under "
            f"{COLLAPSE_SHARE:.0%} of the median prompt"
            for each in by_prompt
            if each.collapsed
        ]
    else:
        absent.append(Absent(metric="diversity_within", why="needs a prompt with 2 clips (other seeds)"))
    if len(set(prompts)) > 1:
        interval = Interval(between_prompts(clips, prompts), None, None, None, "mean over pairs of different prompts")
        meaning = (
            "Mean cosine distance between clips of different prompts; no more than within means prompts are ignored."
        )
        metrics["diversity_between"] = embeddings.metric(interval, meaning, n=len(chosen))
    else:
        absent.append(Absent(metric="diversity_between", why="needs 2 different prompts"))
    return metrics, absent, warnings


def _prdc(embeddings: Embeddings) -> Metrics:
    found = prdc(embeddings.reference.clips, embeddings.generated.clips)
    method = f"{NEAREST}-nearest-neighbour balls, float64"
    meanings = {
        "precision": "Share of generated clips inside the reference.",
        "recall": "Share of reference clips inside the generated set.",
        "density": "How deep inside the reference the generated clips lie; 1 is typical, more is possible.",
        "coverage": "Share of reference neighbourhoods that hold a generated clip; collapse lowers it.",
    }
    return {
        name: embeddings.metric(Interval(found[name], None, None, None, method), meaning, better="higher")
        for name, meaning in meanings.items()
    }


def _divided(interval: Interval, by: float) -> Interval:
    se, low, high = (None if value is None else value / by for value in (interval.se, interval.low, interval.high))
    return Interval(interval.value / by, se, low, high, f"{interval.method}; the reference taken as fixed")

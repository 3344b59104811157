"""Do clips match their prompts: the scores of one text-audio model, and how far they are above chance."""

from dataclasses import dataclass

import numpy as np

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.evaluation.embeddings import Metrics, Space, measured
from sdxl_mel.files.evaluation import Absent, Metric
from sdxl_mel.metrics.alignment import (
    audio_retrieval,
    matched_gap,
    matched_scores,
    mean_by_prompt,
    r_precision,
    text_retrieval,
)
from sdxl_mel.metrics.embedders.base import AudioEmbedder, TextEmbedder, unit_rows
from sdxl_mel.metrics.embedders.tag_score import TagBridge
from sdxl_mel.metrics.intervals import Interval, mean_interval
from sdxl_mel.metrics.verbal_grades import band

PERMUTATIONS = 1999
R_PRECISION_OTHERS, R_PRECISION_DRAWS = 31, 100


@dataclass(frozen=True)
class Scores:
    """The score matrix (clips with a prompt, distinct prompts), the column of each clip's prompt, and what they are."""

    matrix: Vectors
    prompts: list[str]
    truth: np.ndarray
    clips: list[int]


def score_prompts(embedder: AudioEmbedder, windows: list[Float], space: Space) -> Scores | None:
    """Return the scores of all clips that have a prompt against all prompts, None where the model has no text side."""
    chosen = space.prompted
    prompts = list(dict.fromkeys(prompt for prompt in space.prompts if prompt))
    if not chosen:
        return None
    if isinstance(embedder, TagBridge):
        matrix = embedder.scores([windows[index] for index in chosen], prompts)
    elif isinstance(embedder, TextEmbedder):
        matrix = space.generated.clips[chosen] @ unit_rows(embedder.embed_text(prompts)).T
    else:
        return None
    truth = np.array([prompts.index(space.prompts[index] or "") for index in chosen])
    return Scores(matrix, prompts, truth, chosen)


def adherence(scores: Scores, space: Space, prefix: str) -> tuple[Metrics, list[Absent]]:
    """Return the metrics of one model, named `prefix`_mean, _gap, _r1, _r5 and _mrr."""
    own = matched_scores(scores.matrix, scores.truth)
    metrics = {f"{prefix}_mean": _mean(scores, own, space, prefix)}
    if len(scores.prompts) < 2:
        why = "needs 2 different prompts: with one there is nothing to confuse it with"
        return metrics, [Absent(metric=f"{prefix}_{name}", why=why) for name in ("gap", "r1", "r5", "mrr")]
    return metrics | _gap(scores, space, prefix) | _retrieval(scores, space, prefix), []


def _mean(scores: Scores, own: Vectors, space: Space, prefix: str) -> Metric:
    prompts = [scores.prompts[column] for column in scores.truth]
    interval = mean_interval(own, prompts)
    word = band(f"{prefix}_mean", space.family, interval.value, interval.low, interval.high)
    meaning = (
        "Mean cosine of a clip and its prompt, no clamp and no factor."
        if prefix != "tagbridge"
        else "Mean z-scored musicnn tag evidence, weighted by how near a tag is to the prompt; 0 is chance. Not CLAP."
    )
    details = {"std": float(own.std(ddof=1)) if len(own) > 1 else None, "lowest": float(own.min())}
    return measured(
        interval,
        space,
        meaning,
        n=len(own),
        better="higher",
        by_prompt=mean_by_prompt(own, prompts),
        details=details,
        band=word.word if word else None,
        band_span=word.spans if word else (),
        no_band=word.why_none if word else None,
    )


def _gap(scores: Scores, space: Space, prefix: str) -> Metrics:
    gap = matched_gap(scores.matrix, scores.truth, PERMUTATIONS, space.seed)
    meaning = "Mean score with the own prompt minus that with the other prompts; 0 is chance, whatever the model."
    details = {"shuffled_mean": gap.shuffled, "p": gap.p}
    prompts = [scores.prompts[column] for column in scores.truth]
    own = matched_scores(scores.matrix, scores.truth) - gap.others
    return {
        f"{prefix}_gap": measured(
            gap.interval,
            space,
            meaning,
            n=len(scores.truth),
            better="higher",
            details=details,
            by_prompt=mean_by_prompt(own, prompts),
        )
    }


def _retrieval(scores: Scores, space: Space, prefix: str) -> Metrics:
    forward, backward = text_retrieval(scores.matrix, scores.truth), audio_retrieval(scores.matrix, scores.truth)
    others = min(R_PRECISION_OTHERS, len(scores.prompts) - 1)
    precision = r_precision(scores.matrix, scores.truth, others, R_PRECISION_DRAWS, space.seed)
    more = {"r_precision": {"value": precision, "others": others}, "median_rank": forward.median_rank}
    rows: list[tuple[str, Interval, str, dict[str, object]]] = [
        (
            "r1",
            forward.recall_1,
            "Share of clips whose own prompt scores highest among all prompts.",
            {"chance": forward.chance_1, "audio_from_text": backward.recall_1.value, **more},
        ),
        (
            "r5",
            forward.recall_5,
            "Share of clips whose own prompt is among the five highest.",
            {"chance": forward.chance_5, "audio_from_text": backward.recall_5.value},
        ),
        (
            "mrr",
            forward.reciprocal_rank,
            "Mean of 1 / rank of the own prompt.",
            {"audio_from_text": backward.reciprocal_rank.value, "prompts": len(scores.prompts)},
        ),
    ]
    return {
        f"{prefix}_{name}": measured(interval, space, meaning, n=len(scores.truth), better="higher", details=details)
        for name, interval, meaning, details in rows
    }

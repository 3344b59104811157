"""Do clips match their prompts: the scores of one text-audio model, and how far they are above chance."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Vectors
from sdxl_mel.evaluation.embeddings import Embeddings, Metrics
from sdxl_mel.files.evaluation import Absent, Metric
from sdxl_mel.metrics.alignment import (
    audio_retrieval,
    matched_gap,
    matched_scores,
    mean_by_prompt,
    r_precision,
    text_retrieval,
)
from sdxl_mel.metrics.embedders.base import TextAudioEmbedder
from sdxl_mel.metrics.grades import grade
from sdxl_mel.metrics.intervals import mean_interval

PERMUTATIONS = 1999
R_PRECISION_OTHERS, R_PRECISION_DRAWS = 31, 100


@dataclass(frozen=True)
class Scores:
    """The score matrix (clips with a prompt, distinct prompts), the column of each clip's prompt, and what they are."""

    matrix: Vectors
    prompts: list[str]
    truth: NDArray[np.intp]
    clips: list[int]

    @property
    def own(self) -> Vectors:
        """Return the score of each clip with its own prompt, (clips,)."""
        return matched_scores(self.matrix, self.truth)

    @property
    def own_prompts(self) -> list[str]:
        """Return the prompt of each clip."""
        return [self.prompts[column] for column in self.truth]


def score_prompts(embedder: TextAudioEmbedder, embeddings: Embeddings) -> Scores | None:
    """Return the scores of all generated clips that have a prompt against all prompts, None where none has one."""
    chosen = embeddings.prompted
    if not chosen:
        return None
    prompts = list(dict.fromkeys(prompt for prompt in embeddings.prompts if prompt))
    matrix = embedder.scores([embeddings.generated.windows[index] for index in chosen], prompts)
    truth = np.array([prompts.index(embeddings.prompts[index] or "") for index in chosen])
    return Scores(matrix, prompts, truth, chosen)


def alignment(scores: Scores, embeddings: Embeddings, embedder: TextAudioEmbedder) -> tuple[Metrics, list[Absent]]:
    """Return the metrics of one model, named by its prefix and _mean, _gap, _r1, _r5, _mrr, and those absent."""
    prefix = embedder.prefix
    metrics = {f"{prefix}_mean": _mean(scores, embeddings, embedder)}
    if len(scores.prompts) < 2:
        why = "needs 2 different prompts: with one there is nothing to confuse it with"
        return metrics, [Absent(metric=f"{prefix}_{name}", why=why) for name in ("gap", "r1", "r5", "mrr")]
    others = {"gap": _gap(scores, embeddings, embedder)} | _retrieval(scores, embeddings)
    return metrics | {f"{prefix}_{name}": metric for name, metric in others.items()}, []


def _mean(scores: Scores, embeddings: Embeddings, embedder: TextAudioEmbedder) -> Metric:
    own, prompts = scores.own, scores.own_prompts
    interval = mean_interval(own, prompts).within(*embedder.score_range)
    return embeddings.metric(
        interval,
        embedder.score_meaning,
        n=len(own),
        better="higher",
        by_prompt=mean_by_prompt(own, prompts),
        details={"std": float(own.std(ddof=1)) if len(own) > 1 else None, "lowest": float(own.min())},
        grade=grade(f"{embedder.prefix}_mean", embedder.family, interval.value, interval.low, interval.high),
    )


def _gap(scores: Scores, embeddings: Embeddings, embedder: TextAudioEmbedder) -> Metric:
    least, most = embedder.score_range
    gap = matched_gap(scores.matrix, scores.truth, PERMUTATIONS, embeddings.seed)
    return embeddings.metric(
        gap.interval.within(least - most, most - least),
        "Mean score with the own prompt minus that with the other prompts; 0 is chance, whatever the model.",
        n=len(scores.truth),
        better="higher",
        by_prompt=mean_by_prompt(scores.own - gap.others, scores.own_prompts),
        details={"shuffled_mean": gap.shuffled, "p": gap.p},
    )


def _retrieval(scores: Scores, embeddings: Embeddings) -> Metrics:
    forward, backward = text_retrieval(scores.matrix, scores.truth), audio_retrieval(scores.matrix, scores.truth)
    others = min(R_PRECISION_OTHERS, len(scores.prompts) - 1)
    precision = r_precision(scores.matrix, scores.truth, others, R_PRECISION_DRAWS, embeddings.seed)
    more = {"r_precision": {"value": precision, "others": others}, "median_rank": forward.median_rank}
    metric = partial(embeddings.metric, n=len(scores.truth), better="higher")
    return {
        "r1": metric(
            forward.recall_1,
            "Share of clips whose own prompt scores highest among all prompts.",
            details={"chance": forward.chance_1, "audio_from_text": backward.recall_1.value, **more},
        ),
        "r5": metric(
            forward.recall_5,
            "Share of clips whose own prompt is among the five highest.",
            details={"chance": forward.chance_5, "audio_from_text": backward.recall_5.value},
        ),
        "mrr": metric(
            forward.reciprocal_rank,
            "Mean of 1 / rank of the own prompt.",
            details={"audio_from_text": backward.reciprocal_rank.value, "prompts": len(scores.prompts)},
        ),
    }

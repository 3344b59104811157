"""The result of an evaluation in memory: what metrics.json holds, and what the report shows besides."""

from dataclasses import dataclass

from sdxl_mel.evaluation.alignment import Scores
from sdxl_mel.evaluation.clips import Decoding
from sdxl_mel.evaluation.embed_clips import ClipSet
from sdxl_mel.evaluation.embeddings import Embeddings
from sdxl_mel.evaluation.memorization import Pair
from sdxl_mel.files.evaluation import Evaluation


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation, its sets of clips, and how their pictures were decoded.

    `plain` are the embeddings of the plain metrics, `scores` the text scores by prefix, `pairs` every generated clip
    with its nearest training clip.
    """

    evaluation: Evaluation
    sets: dict[str, ClipSet]
    decoding: Decoding
    plain: Embeddings | None
    scores: dict[str, Scores]
    pairs: list[Pair]

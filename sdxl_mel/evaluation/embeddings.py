"""One embedder's view of the sets: the vectors that metrics are computed from, and metrics made from intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdxl_mel.arrays import Float, Owner, Vectors
from sdxl_mel.files.evaluation import Details, Metric
from sdxl_mel.metrics.embedders.base import clip_vectors, unit_rows
from sdxl_mel.metrics.grades import Grade
from sdxl_mel.metrics.intervals import Interval

Metrics = dict[str, Metric]


class SetEmbeddings:
    """The clips of one set: unit vectors of clips (n, d), of windows (w, d), and the clip of each window (w,)."""

    def __init__(self, windows: list[Float]) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def clips(self) -> Vectors:
        """Return one unit vector for each clip."""
        return clip_vectors(self.windows)

    @cached_property
    def rows(self) -> Vectors:
        """Return the unit vectors of all windows."""
        return unit_rows(np.concatenate(self.windows))

    @cached_property
    def owner(self) -> Owner:
        """Return the clip of each window."""
        return np.repeat(np.arange(len(self.windows)), [len(clip) for clip in self.windows])


@dataclass(frozen=True)
class Embeddings:
    """What the metrics of one embedder need; `prompts` are those of the generated clips, None where unknown."""

    embedder: str
    family: str | None
    generated: SetEmbeddings
    reference: SetEmbeddings
    names: list[str]
    prompts: list[str | None]
    seed: int
    training: SetEmbeddings | None = None
    before: SetEmbeddings | None = None
    """What another model made of the same prompts, its clips in the order of `after`."""
    after: SetEmbeddings | None = None
    """The generated clips that have such a partner."""

    @property
    def groups(self) -> list[str]:
        """Return what is one draw among the generated clips: a prompt, or a clip that has none."""
        return [
            f"prompt {prompt}" if prompt else f"clip {name}"
            for prompt, name in zip(self.prompts, self.names, strict=True)
        ]

    @property
    def prompted(self) -> list[int]:
        """Return the generated clips that have a prompt."""
        return [index for index, prompt in enumerate(self.prompts) if prompt]

    def metric(
        self, interval: Interval, meaning: str, *, n: int | None = None, grade: Grade | None = None, **fields: Any
    ) -> Metric:
        """Return an interval over the generated clips (or `n` units) as a metric of this embedder; see `metric_of`."""
        n = len(self.generated) if n is None else n
        if grade:
            fields |= {"grade": grade.word, "grade_span": grade.span, "no_grade": grade.why_none}
        return metric_of(interval, meaning, n=n, embedder=self.embedder, **fields)


def metric_of(
    interval: Interval, meaning: str, *, n: int, details: Mapping[str, object] | None = None, **fields: Any
) -> Metric:
    """Return an interval over `n` units as a metric; `fields` are others of `Metric`."""
    said = Details.model_validate(dict(details or {}))
    return Metric(**asdict(interval), n=n, meaning=meaning, details=said, **fields)

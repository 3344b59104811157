"""One embedder's view of the sets: the vectors that the metrics are computed from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Float, Vectors
from sdxl_mel.files.evaluation import Metric
from sdxl_mel.metrics.embedders.base import clip_vectors, window_vectors
from sdxl_mel.metrics.intervals import Interval

Metrics = dict[str, Metric]


class Cloud:
    """The clips of one set: unit vectors of clips (n, d), of windows (w, d), and the clip of each window (w,)."""

    def __init__(self, windows: list[Float]) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    @cached_property
    def clips(self) -> Vectors:
        """Return one unit vector for each clip."""
        return clip_vectors(self._windows)

    @cached_property
    def _rows(self) -> tuple[Vectors, NDArray[np.intp]]:
        return window_vectors(self._windows)

    @property
    def rows(self) -> Vectors:
        """Return the unit vectors of all windows."""
        return self._rows[0]

    @property
    def owner(self) -> NDArray[np.intp]:
        """Return the clip of each window."""
        return self._rows[1]


@dataclass(frozen=True)
class Space:
    """What the metrics of one embedder need; `prompts` are those of the generated clips, None where unknown."""

    embedder: str
    family: str | None
    generated: Cloud
    reference: Cloud
    names: list[str]
    prompts: list[str | None]
    seed: int
    before: Cloud | None = None
    """What another model made of the same prompts, its clips in the order of `after`."""
    after: Cloud | None = None
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


def measured(interval: Interval, space: Space, meaning: str, **more: object) -> Metric:
    """Return an interval as a metric of a space."""
    values: dict[str, object] = {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "se": interval.se,
        "n": len(space.generated),
        "embedder": space.embedder,
        "method": interval.method,
        "meaning": meaning,
    }
    return Metric.model_validate(values | more)

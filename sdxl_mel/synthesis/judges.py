"""The evaluation's alignment scores as judges of candidates."""

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.metrics.embedders.base import clip_vectors, unit_rows
from sdxl_mel.metrics.embedders.clap import ClapEmbedder
from sdxl_mel.metrics.embedders.tag_score import TagBridge

Float = NDArray[np.float32]


class ClapJudge:
    """Cosine of CLAP's vectors of a clip and of its prompt."""

    name = "clap"

    def __init__(self, source: str) -> None:
        self._clap = ClapEmbedder(source)
        self.rate, self.weights = self._clap.rate, self._clap.weights

    def scores_of(self, clips: list[Float], prompt: str) -> list[float]:
        """Return one cosine a clip."""
        sounds = clip_vectors([self._clap.embed_audio(clip) for clip in clips])
        text = unit_rows(self._clap.embed_text([prompt]))[0]
        return [float(score) for score in sounds @ text]


class TagJudge:
    """The tag bridge's score of a prompt, each candidate beside the others."""

    name = "tagbridge"

    def __init__(self) -> None:
        self._bridge = TagBridge()
        self.rate, self.weights = self._bridge.rate, self._bridge.weights

    def scores_of(self, clips: list[Float], prompt: str) -> list[float]:
        """Return one score a clip."""
        heard = [self._bridge.embed_audio(clip) for clip in clips]
        return [float(score) for score in self._bridge.scores(heard, [prompt])[:, 0]]

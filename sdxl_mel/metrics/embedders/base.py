"""What an embedder is, and the vectors made from its windows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.arrays import Float, Vectors


@dataclass(frozen=True)
class WindowRule:
    """Windows of `length` from the start, without overlap; lengths in samples or frames.

    A last piece of at least `shortest` is repeated until it fills a window; a shorter one is left out, unless it is all
    there is.
    """

    length: int
    shortest: int

    def cut(self, signal: Float) -> Float:
        """Return the windows (count, length, ...) of a signal (n, ...), n >= 1; there is always at least one."""
        whole = len(signal) // self.length
        windows = [signal[start : start + self.length] for start in range(0, whole * self.length, self.length)]
        rest = signal[whole * self.length :]
        if len(rest) >= self.shortest or not whole:
            windows.append(np.take(rest, np.arange(self.length), axis=0, mode="wrap"))
        return np.stack(windows)

    def __str__(self) -> str:
        return f"windows of {self.length} from 0, last piece of {self.shortest} or more repeated to fill one"


class AudioEmbedder(ABC):
    """Turns sound into vectors. `weights` is the SHA-256 of what it was loaded from, `windows` its rule in words."""

    name: str
    weights: str
    rate: int
    windows: str
    family: str | None = None
    """LAION's name of the checkpoint, for which some metrics have calibrated grades."""
    is_space: bool = True
    """Whether distances between its vectors say how alike two sounds are."""

    @abstractmethod
    def embed_audio(self, samples: Float) -> Float:
        """Return one raw vector for each window, (windows, d), of mono samples (n,) at `rate`."""


class TextAudioEmbedder(AudioEmbedder):
    """An embedder that also says how near a clip is to a text; `prefix` begins the names of these metrics."""

    prefix: str
    score_meaning: str = "Mean cosine of a clip and its prompt, no clamp and no factor."
    score_range: tuple[float, float] = (-1.0, 1.0)

    @abstractmethod
    def scores(self, clips: list[Float], texts: list[str]) -> Vectors:
        """Return the score (clips, texts) of embedded clips, each (windows, d); higher is nearer."""


def unit_rows(rows: NDArray[np.floating]) -> Vectors:
    """Return the rows (n, d) with length 1, in float64; a row of zeros stays."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def clip_vectors(windows: list[Float]) -> Vectors:
    """Return one unit vector for each clip, (clips, d): the mean of its raw window vectors, normalised."""
    return unit_rows(np.stack([clip.astype(np.float64).mean(0) for clip in windows]))


def cosine_scores(clips: list[Float], texts: Float) -> Vectors:
    """Return the cosines (clips, texts) of clips, each (windows, d), and vectors of texts (texts, d)."""
    return clip_vectors(clips) @ unit_rows(texts).T

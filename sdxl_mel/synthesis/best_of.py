"""The best of several candidates: consistent as a spectrogram, and near its prompt where something can judge that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import MissingError
from sdxl_mel.execution import map_jobs
from sdxl_mel.metrics.codec_fidelity import pixel_rmse
from sdxl_mel.metrics.embedders.base import clip_vectors, unit_rows
from sdxl_mel.metrics.embedders.clap import ClapEmbedder
from sdxl_mel.metrics.embedders.tag_score import TagScore
from sdxl_mel.progress import log
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec


@dataclass(frozen=True)
class Judge:
    """Scores clips of one rate against a prompt: `scores_of` (clips, prompt) is one number a clip, higher is nearer."""

    name: str
    weights: str
    rate: int
    scores_of: Callable[[Sequence[Float], str], list[float]]


def clap_judge(source: str) -> Judge:
    """Return the judge that takes the cosine of CLAP's vectors of a clip and of its prompt."""
    clap = ClapEmbedder(source)

    def scores_of(clips: Sequence[Float], prompt: str) -> list[float]:
        sounds = clip_vectors([clap.embed_audio(clip) for clip in clips])
        return [float(score) for score in sounds @ unit_rows(clap.embed_text([prompt]))[0]]

    return Judge("clap", clap.weights, clap.rate, scores_of)


def tag_judge() -> Judge:
    """Return the judge that takes the tag bridge's score of a prompt, each candidate beside the others."""
    bridge = TagScore()

    def scores_of(clips: Sequence[Float], prompt: str) -> list[float]:
        heard = [bridge.embed_audio(clip) for clip in clips]
        return [float(score) for score in bridge.scores(heard, [prompt])[:, 0]]

    return Judge("tagbridge", bridge.weights, bridge.rate, scores_of)


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and the scores of all: alignment, if judged, and inconsistency.

    That is the RMS difference, of 1.0, between a picture and the picture of its sound: 0 for a true spectrogram.
    """

    index: int
    inconsistency: tuple[float, ...]
    alignment: tuple[float, ...] | None


def choose(candidates: Sequence[Levels], prompt: str, spec: MelSpec, judge: Judge | None) -> Choice:
    """Return the candidate with the best sum of ranks; the earlier of two equals."""
    sounds = list(map_jobs(lambda levels: invert(levels, spec, method="fast"), candidates))
    faults = [pixel_rmse(levels, sound, spec) for levels, sound in zip(candidates, sounds)]
    scores = None if judge is None else judge.scores_of([_mono(sound, spec, judge.rate) for sound in sounds], prompt)
    ranks = _ranks(faults) + (0 if scores is None else _ranks([-score for score in scores]))
    return Choice(int(np.argmin(ranks)), tuple(faults), None if scores is None else tuple(scores))


def open_judge(clap: str | None) -> Judge | None:
    """Return what scores alignment: CLAP where given, else the tag bridge where its packages are, else None."""
    if clap is not None:
        return clap_judge(clap)
    try:
        return tag_judge()
    except MissingError as error:
        log(f"best of several by consistency alone ({error})")
        return None


def _mono(sound: Float, spec: MelSpec, rate: int) -> Float:
    return np.asarray(soxr.resample(sound.mean(axis=0), spec.sample_rate, rate, quality="HQ"), dtype=np.float32)


def _ranks(values: Sequence[float]) -> NDArray[np.intp]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")

"""What no embedding sees of a sound: silence, clipping, offset, loudness, bandwidth, and whether it fits its picture.

FACTS is the one table of these numbers. A new one is a row of it: the caches compute it for the clips they know, the
table of clips shows it and the report states its mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.files.spectrogram import Spectrogram
from sdxl_mel.metrics.codec_fidelity import EDGE_FRAMES, pixel_rmse
from sdxl_mel.sound.loudness import integrated_loudness
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import seam_scores

FORMAT = "3"
"""Counts up when a fact is computed in another way."""
SILENT_PEAK = 1e-3
"""-60 dBFS: a clip whose loudest sample is below it is silent."""
FRAME_SECONDS = 0.1
QUIET_RMS = 1e-3
CLIP_LEVEL, CLIP_RUN = 0.999, 3
"""Three samples in a row at full scale are clipped; one may be a peak."""
UNKNOWN = -1000.0
"""Stands for None in a row; no fact has this value."""
SEAM_SHARES = (1.0, 0.875, 0.8125, 0.75, 0.5)
"""Strides of tiles, in tiles, at which joins are looked for."""
SEAM_CONTEXT_SECONDS = 0.25
ROLLOFF = 0.95
ROLLOFF_FFT = 4096


@dataclass(frozen=True)
class Signal:
    """Samples (channels, n), n >= 1, at `rate` Hz, and the picture they belong to, if there is one."""

    samples: Float
    rate: int
    picture: Spectrogram | None = None

    def mono(self) -> Float:
        """Return the mean of the channels, (n,)."""
        return np.ascontiguousarray(self.samples.mean(0))


def loudness_lufs(signal: Signal) -> float | None:
    """Return the integrated loudness in LUFS; None where no block of 0.4 s is as loud as the gate, -70 LUFS."""
    loudness = integrated_loudness(signal.samples[:2], signal.rate)
    return loudness if np.isfinite(loudness) else None


def offset(signal: Signal) -> float:
    """Return the mean sample of the channel where it is farthest from 0."""
    return float(np.abs(signal.samples.mean(1, dtype=np.float64)).max())


def consistency(signal: Signal) -> float | None:
    """Return the RMSE, in 0..1, of a picture against the picture of its own sound; None without a picture."""
    picture = signal.picture
    if picture is None or picture.levels.shape[1] <= 2 * EDGE_FRAMES:
        return None
    return pixel_rmse(picture.levels, signal.samples, picture.spec)


def seam(signal: Signal) -> float | None:
    """Return the `seam_score` of a signal's picture; None without one."""
    picture = signal.picture
    return None if picture is None else seam_score(dequantise(picture.levels), picture.spec)


def seam_score(values: Float, spec: MelSpec) -> float | None:
    """Return how far joins of tiles stand out of a picture (n_mels, frames, channels) in 0..1, None for one tile.

    The mean z-score of the change of spectrum across places a stride apart, for the stride where it is largest: about
    0 to 1 where there is none, for the largest of five is above its mean; 3 and more is audible.
    """
    frames = values.shape[1]
    context = max(1, round(SEAM_CONTEXT_SECONDS * spec.sample_rate / spec.hop_length))
    means = []
    for share in SEAM_SHARES if frames > spec.width else ():
        starts = range(round(share * spec.width), frames - context, round(share * spec.width))
        scores = np.array(seam_scores(values, starts, [0] * len(starts), context))
        if np.isfinite(scores).any():
            means.append(float(scores[np.isfinite(scores)].mean()))
    return max(means) if means else None


def silent_share(signal: Signal) -> float:
    """Return the share of frames of 0.1 s whose RMS is below -60 dBFS; a shorter clip is one frame."""
    samples = signal.samples
    length = max(1, min(samples.shape[1], round(FRAME_SECONDS * signal.rate)))
    count = samples.shape[1] // length
    frames = samples[:, : count * length].reshape(samples.shape[0], count, length)
    rms = np.sqrt(np.square(frames, dtype=np.float64).mean((0, 2)))
    return float((rms < QUIET_RMS).mean())


def clipped_share(signal: Signal) -> float:
    """Return the share of samples in runs of three or more at full scale."""
    full = np.abs(signal.samples) >= CLIP_LEVEL
    if not full.any() or full.shape[1] < CLIP_RUN:
        return 0.0
    runs = full[:, 2:] & full[:, 1:-1] & full[:, :-2]
    inside = np.zeros_like(full)
    for shift in range(CLIP_RUN):
        inside[:, shift : shift + runs.shape[1]] |= runs
    return float(inside.mean())


def rolloff_hertz(signal: Signal) -> float:
    """Return the frequency below which 95 % of the energy lies, from the mean power spectrum; 0 for silence."""
    mono = signal.mono()
    count = max(1, len(mono) // ROLLOFF_FFT)
    frames = np.resize(mono[: count * ROLLOFF_FFT], (count, ROLLOFF_FFT)) if len(mono) >= ROLLOFF_FFT else mono[None]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), axis=1))).mean(0)
    total = np.cumsum(power)
    if total[-1] <= 0:
        return 0.0
    return float(np.searchsorted(total, ROLLOFF * total[-1]) * signal.rate / frames.shape[1])


@dataclass(frozen=True)
class Fact:
    """A number of one signal, its `name` and how it is computed; `column` says that the table of clips shows it.

    Where `metric` is not empty, the mean over the clips is the metric of that name and `meaning`, between `least` and
    `most`.
    """

    name: str
    of: Callable[[Signal], float | None]
    metric: str = ""
    meaning: str = ""
    better: Literal["higher", "lower"] | None = None
    least: float = 0.0
    most: float = np.inf
    column: bool = True


CLIPPING = "Mean share of samples in runs of 3 or more at full scale."
CONSISTENCY = "RMSE (of 1.0) between a picture and the picture of its own sound: how far it is from a spectrogram."
SEAMS = "Mean z-score of the change of spectrum where tiles may meet, in pictures longer than a tile; 3 is audible."
FACTS = (
    Fact("seconds", lambda signal: signal.samples.shape[1] / signal.rate),
    Fact("peak", lambda signal: float(np.abs(signal.samples).max()), column=False),
    Fact("lufs", loudness_lufs, "loudness", "Mean integrated loudness in LUFS (ITU-R BS.1770-4).", least=-np.inf),
    Fact("silent", silent_share, "silence", "Mean share of the time below -60 dBFS.", "lower", most=1.0),
    Fact("clipped", clipped_share, "clipping", CLIPPING, "lower", most=1.0),
    Fact("offset", offset, "offset", "Mean constant part of the signal, full scale = 1.", "lower", column=False),
    Fact("rolloff", rolloff_hertz, "rolloff", "Mean frequency in Hz below which 95 % of the energy lies."),
    Fact("consistency", consistency, "consistency", CONSISTENCY, "lower", most=1.0),
    Fact("seam", seam, "seams", SEAMS, "lower", least=-np.inf, column=False),
)

Facts = Mapping[str, float | None]
"""The numbers of one signal by name; None where one does not apply."""


def facts_of(signal: Signal, facts: Sequence[Fact] = FACTS) -> Facts:
    """Return the facts of a signal."""
    return {fact.name: fact.of(signal) for fact in facts}


def is_silent(facts: Facts) -> bool:
    """Say whether the loudest sample is below -60 dBFS."""
    return (facts["peak"] or 0.0) < SILENT_PEAK


def to_row(facts: Facts) -> Float:
    """Return the facts as one row of numbers (1, n), which `from_row` reads."""
    return np.array([[UNKNOWN if value is None else value for value in facts.values()]], dtype=np.float32)


def from_row(row: Float, facts: Sequence[Fact] = FACTS) -> Facts:
    """Return the facts in a row (1, n) that `to_row` made."""
    values = map(float, row[0])
    return {fact.name: None if value == UNKNOWN else value for fact, value in zip(facts, values, strict=True)}


def identity(facts: Sequence[Fact] = FACTS) -> dict[str, str]:
    """Return what decides rows of these facts, for their cache: with another fact it is another cache."""
    return {"facts": " ".join([FORMAT, *(fact.name for fact in facts)])}

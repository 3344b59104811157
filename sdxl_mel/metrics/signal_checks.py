"""Facts about a sound that no embedding sees: silence, clipping, offset, loudness, bandwidth."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.sound.loudness import integrated_loudness
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.seams import seam_scores

SILENT_PEAK = 1e-3
"""-60 dBFS: a clip whose loudest sample is below it is silent."""
FRAME_SECONDS = 0.1
QUIET_RMS = 1e-3
CLIP_LEVEL, CLIP_RUN = 0.999, 3
"""Three samples in a row at full scale are clipped; one may be a peak."""
QUIETEST_LUFS = -70.0
UNKNOWN = -1000.0
"""Stands for None in a row; no fact has this value."""
SEAM_SHARES = (1.0, 0.875, 0.8125, 0.75, 0.5)
"""Strides of tiles, in tiles, at which joins are looked for."""
SEAM_CONTEXT_SECONDS = 0.25
ROLLOFF = 0.95
ROLLOFF_FFT = 4096


@dataclass(frozen=True)
class Facts:
    """What is known of one sound.

    `silent` and `clipped` are shares of the time, `offset` the mean sample, `rolloff` the frequency in Hz below which
    95 % of the energy lies. `consistency` is the RMSE, in 0..1, of a picture against the picture of its own sound, and
    `seam` the score of `seam_score`; both are None for what came as sound.
    """

    seconds: float
    rate: int
    channels: int
    peak: float
    lufs: float
    silent: float
    clipped: float
    offset: float
    rolloff: float
    consistency: float | None = None
    seam: float | None = None

    def to_row(self) -> Float:
        """Return the facts as one row of numbers, which `from_row` reads."""
        return np.array([[UNKNOWN if value is None else value for value in asdict(self).values()]], dtype=np.float32)

    @classmethod
    def from_row(cls, row: Float) -> "Facts":
        """Return the facts in a row."""
        values: dict[str, Any] = dict(zip((field.name for field in fields(cls)), map(float, row[0]), strict=True))
        values |= {"rate": int(values["rate"]), "channels": int(values["channels"])}
        return cls(**values | {name: None for name, value in values.items() if value == UNKNOWN})

    @property
    def is_silent(self) -> bool:
        """Say whether there is nothing to hear."""
        return self.peak < SILENT_PEAK


def facts_of(samples: Float, rate: int, consistency: float | None = None, seam: float | None = None) -> Facts:
    """Return the facts of samples (channels, n), n >= 1, with what is known of their picture."""
    size = np.abs(samples)
    return Facts(
        seconds=samples.shape[1] / rate,
        rate=rate,
        channels=samples.shape[0],
        peak=float(size.max()),
        lufs=max(QUIETEST_LUFS, integrated_loudness(samples[:2], rate)),
        silent=silent_share(samples, rate),
        clipped=clipped_share(samples),
        offset=float(np.abs(samples.mean(1, dtype=np.float64)).max()),
        rolloff=rolloff_hertz(samples.mean(0), rate),
        consistency=consistency,
        seam=seam,
    )


def seam_score(values: Float, spec: MelSpec) -> float | None:
    """Return how far joins of tiles stand out of a picture (n_mels, frames, channels) in 0..1, None for one tile.

    The mean z-score of the change of spectrum across places a stride apart, for the stride where it is largest: about
    0 to 1 where there is none, for the largest of five is above its mean; 3 and more is heard.
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


def silent_share(samples: Float, rate: int) -> float:
    """Return the share of frames of 0.1 s whose RMS is below -60 dBFS; a shorter clip is one frame."""
    length = max(1, min(samples.shape[1], round(FRAME_SECONDS * rate)))
    count = samples.shape[1] // length
    frames = samples[:, : count * length].reshape(samples.shape[0], count, length)
    rms = np.sqrt(np.square(frames, dtype=np.float64).mean((0, 2)))
    return float((rms < QUIET_RMS).mean())


def clipped_share(samples: Float) -> float:
    """Return the share of samples in runs of three or more at full scale."""
    full = np.abs(samples) >= CLIP_LEVEL
    if not full.any() or samples.shape[1] < CLIP_RUN:
        return 0.0
    runs = full[:, 2:] & full[:, 1:-1] & full[:, :-2]
    inside = np.zeros_like(full)
    for shift in range(CLIP_RUN):
        inside[:, shift : shift + runs.shape[1]] |= runs
    return float(inside.mean())


def rolloff_hertz(mono: Float, rate: int) -> float:
    """Return the frequency below which 95 % of the energy lies, from the mean power spectrum; 0 for silence."""
    count = max(1, len(mono) // ROLLOFF_FFT)
    frames = np.resize(mono[: count * ROLLOFF_FFT], (count, ROLLOFF_FFT)) if len(mono) >= ROLLOFF_FFT else mono[None]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), axis=1))).mean(0)
    total = np.cumsum(power)
    if total[-1] <= 0:
        return 0.0
    return float(np.searchsorted(total, ROLLOFF * total[-1]) * rate / frames.shape[1])

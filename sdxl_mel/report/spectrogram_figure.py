"""The figure of a spectrogram: seconds and hertz on the axes, joins marked."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.errors import InputError
from sdxl_mel.sound.melspec import MelSpec, hz_to_mel

MOST_COLUMNS = 4000
"""More columns than a screen shows are averaged, so that an hour of music makes no larger figure than a minute."""
TICKS_HZ = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)


def spectrogram_figure(levels: Levels, spec: MelSpec, seams: Sequence[tuple[int, int]] = (), title: str = "") -> Figure:
    """Return a matplotlib figure of (n_mels, frames, channels) levels; `seams` are (first frame, frames) of joins."""
    seconds_per_frame = spec.hop_length / spec.sample_rate
    seconds = levels.shape[1] * seconds_per_frame
    figure = Figure(figsize=(float(np.clip(seconds / 3, 8, 24)), 4), layout="constrained")
    axes = figure.add_subplot(xlabel="time, s", ylabel="frequency, Hz", title=title)
    axes.imshow(
        _loudness(levels, spec), origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, spec.n_mels)
    )
    for start, frames in seams:
        axes.axvspan(
            start * seconds_per_frame, (start + frames) * seconds_per_frame, color="cyan", alpha=0.18, linewidth=0
        )
        axes.axvline((start + frames / 2) * seconds_per_frame, color="cyan", linewidth=0.8, linestyle=":")
    ticks = [hertz for hertz in TICKS_HZ if spec.fmin < hertz <= spec.fmax]
    axes.set_yticks([_row_of(hertz, spec) for hertz in ticks], [f"{hertz:g}" for hertz in ticks])
    return figure


def figure_bytes(figure: Figure, path: Path) -> bytes:
    """Return a figure as the bytes of the file `path` names, .png or .svg; the same figure makes the same bytes."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path}: plots are written as .png or .svg")
    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "sdxl-mel"}):
        figure.savefig(buffer, format=kind, dpi=110, metadata={"Software": None} if kind == "png" else {"Date": None})
    return buffer.getvalue()


def _loudness(levels: Levels, spec: MelSpec) -> Float:
    """Return the mean of the channels (n_mels, columns), high where it is loud."""
    step = -(-levels.shape[1] // MOST_COLUMNS)
    whole = levels[:, : levels.shape[1] // step * step]
    columns = whole.reshape(levels.shape[0], -1, step * levels.shape[2]).mean(axis=2, dtype=np.float32)
    return 255.0 - columns if spec.law.dark_is_loud else columns


def _row_of(hertz: float, spec: MelSpec) -> float:
    """Return where a frequency is on an axis from 0 to n_mels."""
    low, high, here = hz_to_mel(np.array([spec.fmin, spec.fmax, hertz]), spec.mel_scale)
    return float((here - low) / (high - low) * spec.n_mels)

"""`sdxl-mel roundtrip`: the fidelity ladder, what each step of the codec costs for one's own sound."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.audio import read_audio
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec, named_spec

EXAMPLES = """\
  sdxl-mel roundtrip song.flac
  sdxl-mel roundtrip song.flac --preset long --start 30 --seconds 20 --out ladder.json"""

COLUMNS = {
    "multi_resolution_sc_db": ("mrSC dB", ".2f"),
    "log_spectral_distance_db": ("LSD dB", ".2f"),
    "mel_l1_db": ("mel-L1 dB", ".2f"),
    "onset_correlation": ("onsets", ".3f"),
    "pixel_rmse": ("pixels", ".4f"),
    "correlation_error": ("width", "+.3f"),
    "mono_sum_error_db": ("mono dB", "+.2f"),
    "loudness_lufs": ("LUFS", ".1f"),
    "true_peak_dbtp": ("dBTP", ".1f"),
}
LEGEND = """\
mrSC, LSD, mel-L1: distance to the sound that was encoded, lower is better. onsets: correlation of the attacks. pixels:
RMS difference of the picture of the sound from the picture it came from. width, mono: change of the correlation of the
channels, and of the level of their sum."""

EXACT_DB = -150.0
"""Below this a distance in dB is that of equal sounds."""

Row = dict[str, float | None]


class Config(StageConfig):
    """Print how much of a sound each step of the codec keeps: original, mel, 8 bits, sound."""

    audio: Annotated[Path, Show.POSITIONAL]
    """a sound file"""
    preset: str = "std"
    """format of the picture: std, long, hifi, native, cheap, web, mini"""
    start: float = Field(0.0, ge=0)
    """seconds into the sound"""
    seconds: float | None = Field(None, gt=0)
    """how much to measure; default: a tile, or all of a shorter sound"""
    out: Path | None = None
    """also write the numbers to this JSON file"""
    seed: int = Field(0, ge=0)
    """phases to start from"""


class Report(StageReport):
    """The ladder: one row a step, by its name."""

    preset: str
    seconds: float
    rows: dict[str, Row]

    def summary(self) -> str:
        """Return the ladder as a table."""
        used = [name for name in COLUMNS if any(row.get(name) is not None for row in self.rows.values())]
        lines = [["", *(COLUMNS[name][0] for name in used)]]
        for step, row in self.rows.items():
            lines.append([step, *(_cell(row.get(name), COLUMNS[name][1]) for name in used)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
            for line in lines
        ]
        return "\n".join([f"{self.seconds:.2f} s at {self.preset}", *table, LEGEND])


def run(config: Config) -> Report:
    """Encode and invert a sound step by step, and measure each."""
    from sdxl_mel.sound.encoding import cut_clip, prepare_signal

    spec = named_spec(config.preset)
    samples, rate = read_audio(config.audio)
    signal = prepare_signal(samples, rate, spec)
    first = round(config.start * spec.sample_rate)
    frames = _frames(config, signal.shape[-1] - first, spec)
    rows = _ladder(cut_clip(signal, first, frames, spec), frames, spec, config.seed)
    seconds = frames * spec.hop_length / spec.sample_rate
    if config.out is not None:
        write_json(
            config.out, {"preset": config.preset, "seconds": seconds, "rows": {k: dict(v) for k, v in rows.items()}}
        )
    return Report(preset=config.preset, seconds=seconds, rows=rows)


def _frames(config: Config, available: int, spec: MelSpec) -> int:
    wanted = spec.tile_samples if config.seconds is None else round(config.seconds * spec.sample_rate)
    if config.seconds is not None and wanted > available:
        raise InputError(
            f"{config.audio}: {max(available, 0) / spec.sample_rate:.2f} s from --start on, --seconds asks for "
            f"{config.seconds}"
        )
    frames = min(wanted, available) // spec.hop_length // LATENT_FACTOR * LATENT_FACTOR
    if frames <= 2 * LATENT_FACTOR:
        raise InputError(f"{config.audio}: too short to measure; a quarter of a second from --start is needed")
    return frames


def _ladder(clip: np.ndarray, frames: int, spec: MelSpec, seed: int) -> dict[str, Row]:
    from sdxl_mel.metrics.codec_fidelity import fidelity, pixel_rmse
    from sdxl_mel.sound.encoding import mel_spectrogram
    from sdxl_mel.sound.inversion.methods import invert
    from sdxl_mel.sound.mel import margin
    from sdxl_mel.sound.pixels import quantise, values_of

    original = clip[:, margin(spec) : margin(spec) + frames * spec.hop_length]
    values = values_of(mel_spectrogram(clip, spec), spec)
    levels = quantise(values)
    sounds = {
        "original": original,
        "mel -> best": invert(values, spec, "best", seed),
        "8 bits -> best": invert(levels, spec, "best", seed),
        "8 bits -> fast": invert(levels, spec, "fast", seed),
    }
    return {
        step: fidelity(original, sound, spec.sample_rate).as_dict() | {"pixel_rmse": pixel_rmse(levels, sound, spec)}
        for step, sound in sounds.items()
    }


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "exact" if value < EXACT_DB else format(value, form)

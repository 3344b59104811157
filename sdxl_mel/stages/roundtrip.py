"""`sdxl-mel roundtrip`: the fidelity ladder, what each step of the codec costs for one's own sound."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.files.atomic import write_json
from sdxl_mel.options import Preset

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
    preset: Preset = "std"
    """format of the picture"""
    start: float = Field(0.0, ge=0)
    """seconds into the sound"""
    seconds: float | None = Field(None, gt=0)
    """how much to measure; none = a tile, or all of a shorter sound"""
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
    sound = sdxl_mel.read_audio(config.audio)
    spec = sdxl_mel.named_spec(config.preset)
    seconds, rows = sdxl_mel.fidelity_ladder(
        *sound, spec, start=config.start, seconds=config.seconds, seed=config.seed, name=str(config.audio)
    )
    if config.out is not None:
        content: dict[str, JsonValue] = {"preset": config.preset, "seconds": seconds}
        write_json(config.out, content | {"rows": {step: dict(row) for step, row in rows.items()}})
    return Report(preset=config.preset, seconds=seconds, rows=rows)


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "exact" if value < EXACT_DB else format(value, form)

"""`sdxl-mel encode`: sound to spectrogram pictures."""

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.options import Preset
from sdxl_mel.record import Record

EXAMPLES = """\
  sdxl-mel encode song.flac --out tile.png --start 30
  sdxl-mel encode song.flac --out long.png --seconds 120
  sdxl-mel encode music/ --out pictures/ --preset long"""


class Config(StageConfig):
    """Turn sound into spectrogram pictures, one tile of each file or one long picture."""

    audio: Annotated[list[Path], Show.POSITIONAL, UNRECORDED] = Field(min_length=1)
    """sound files, or folders of them"""
    out: Annotated[Path, UNRECORDED]
    """a .png for one sound, or a folder"""
    preset: Preset = "std"
    """format of the pictures"""
    start: float = Field(0.0, ge=0)
    """seconds into the sound"""
    seconds: float | None = Field(None, gt=0)
    """make one long picture of this duration, rounded down to 8 frames; none = one tile"""
    jobs: Annotated[int, Show.ADVANCED, UNRECORDED] = Field(0, ge=0)
    """processes; 0 is one a core where there are enough files"""


class Report(StageReport):
    """The pictures that were written."""

    written: tuple[Path, ...]

    def summary(self) -> str:
        """Return one line."""
        return f"wrote {self.written[0] if len(self.written) == 1 else f'{len(self.written)} pictures'}"


def run(config: Config) -> Report:
    """Encode every sound; of several, those that cannot be used are skipped and reported."""
    from sdxl_mel import codec

    if config.out.suffix.lower() not in ("", ".png") and not config.out.is_dir():
        raise InputError(f"{config.out}: pictures are written as .png; give NAME.png or a folder as --out")
    jobs, left_out = codec.sounds_given(config.audio, config.out)
    work = partial(
        codec.encode_file,
        spec=sdxl_mel.named_spec(config.preset),
        record=Record(stage="encode", settings=config.recorded()),
        start=config.start,
        seconds=config.seconds,
    )
    written, skipped = codec.convert_files(work, jobs, "sounds", "encoding", config.jobs)
    return Report(written=tuple(written), skipped=(*skipped, *left_out))

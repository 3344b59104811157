"""`sdxl-mel invert`: spectrogram pictures to sound."""

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.options import Bits, Container, Format, Method
from sdxl_mel.record import Record

EXAMPLES = """\
  sdxl-mel invert tile.png --out tile.wav
  sdxl-mel invert pictures/*.png --out sounds/ --suffix flac
  sdxl-mel invert theirs.png --out theirs.wav --format minimidi --method fast"""


class Config(StageConfig):
    """Turn spectrogram pictures into sound."""

    pictures: Annotated[list[Path], Show.POSITIONAL, UNRECORDED] = Field(min_length=1)
    """spectrogram PNGs, or folders of them"""
    out: Annotated[Path, UNRECORDED]
    """a sound file for one picture (.wav .flac .ogg .opus .mp3), or a folder"""
    method: Method = "best"
    """best sound, less than half its time, or librosa's own inversion for comparison"""
    format: Annotated[Format | None, UNRECORDED] = None
    """format of pictures that do not say how they were made"""
    seed: int = Field(0, ge=0)
    """phases to start from; the same seed gives the same sound"""
    loop: bool = False
    """make the end join the beginning"""
    suffix: Annotated[Container, UNRECORDED] = "wav"
    """kind of the files written into a folder"""
    bits: Annotated[Bits | None, UNRECORDED] = None
    """precision of WAV and FLAC; none = 16"""
    device: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """cpu or cuda; none = cuda when there"""


class Report(StageReport):
    """The sounds that were written."""

    written: tuple[Path, ...]
    seconds: float
    clipped: int = 0

    def summary(self) -> str:
        """Return one line; a second one when samples were clipped."""
        where = str(self.written[0]) if len(self.written) == 1 else f"{len(self.written)} files"
        lines = [f"wrote {where}, {self.seconds:.2f} s of sound"]
        if self.clipped:
            lines.append(f"{self.clipped} samples were beyond full scale and were clipped; --bits float keeps them")
        return "\n".join(lines)


def run(config: Config) -> Report:
    """Invert every picture; of several, those that cannot be read are skipped and reported."""
    from sdxl_mel import codec

    jobs, left_out = codec.pictures_given(config.pictures, config.out, f".{config.suffix}")
    work = partial(
        codec.invert_file,
        record=Record(stage="invert", settings=config.recorded()),
        method=config.method,
        seed=config.seed,
        loop=config.loop,
        stated=sdxl_mel.named_spec(config.format) if config.format else None,
        bits=config.bits,
        device=config.device,
    )
    sounds, skipped = codec.convert_files(work, jobs, "pictures", "inverting")
    return Report(
        written=tuple(sound.path for sound in sounds),
        seconds=sum(sound.seconds for sound in sounds),
        clipped=sum(sound.clipped for sound in sounds),
        skipped=(*skipped, *left_out),
    )

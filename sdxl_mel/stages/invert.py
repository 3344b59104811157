"""`sdxl-mel invert`: spectrogram pictures to sound."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, JsonValue

from sdxl_mel.arguments import Show
from sdxl_mel.config import Skipped, StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import CONTAINERS, open_audio, write_audio
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram
from sdxl_mel.options import Method
from sdxl_mel.progress import track
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.loudness import normalising_gain_db
from sdxl_mel.sound.melspec import MelSpec, named_spec

EXAMPLES = """\
  sdxl-mel invert tile.png --out tile.wav
  sdxl-mel invert pictures/*.png --out sounds/ --suffix flac
  sdxl-mel invert theirs.png --out theirs.wav --format minimidi --method fast"""

SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
LOUDNESS_LUFS = -16.0
TRUE_PEAK_DBTP = -1.0


class Config(StageConfig):
    """Turn spectrogram pictures into sound."""

    pictures: Annotated[list[Path], Show.POSITIONAL] = Field(min_length=1)
    """spectrogram PNGs, or folders of them"""
    out: Path
    """a sound file for one picture (.wav .flac .ogg .opus .mp3), or a folder"""
    method: Method = "best"
    """best sound, less than half its time, or librosa's own inversion for comparison"""
    format: str | None = None
    """what the pictures are, when they do not say it themselves: minimidi, riffusion, teticio, auffusion or a preset"""
    seed: int = Field(0, ge=0)
    """phases to start from; the same seed gives the same sound"""
    loop: bool = False
    """make the end join the beginning"""
    suffix: Literal["wav", "flac", "ogg", "opus", "mp3"] = "wav"
    """kind of the files written into a folder"""
    bits: Literal["16", "24", "float"] | None = None
    """precision of WAV and FLAC [16]"""
    device: Annotated[str | None, Show.ADVANCED] = None
    """cpu or cuda; default: cuda when there"""


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
    stated = named_spec(config.format) if config.format else None
    jobs = _jobs(config)
    written, skipped, seconds, clipped = [], [], 0.0, 0
    for picture_path, out in track(jobs, len(jobs), "inverting", "pictures"):
        try:
            length, lost = _invert_one(picture_path, out, config, stated)
        except InputError as error:
            if len(jobs) == 1:
                raise
            skipped.append(Skipped(what=str(picture_path), why=str(error)))
            continue
        written.append(out)
        seconds, clipped = seconds + length, clipped + lost
    if not written:
        raise InputError(f"none of {len(jobs)} pictures could be inverted; the first: {skipped[0].why}")
    return Report(written=tuple(written), seconds=seconds, clipped=clipped, skipped=tuple(skipped))


def _jobs(config: Config) -> list[tuple[Path, Path]]:
    """Return each picture with the file it becomes."""
    pictures = [
        found for path in config.pictures for found in (sorted(path.glob("*.png")) if path.is_dir() else [path])
    ]
    if not pictures:
        raise InputError(f"{config.pictures[0]}: holds no PNG")
    if config.out.suffix.lower() in CONTAINERS:
        if len(pictures) > 1:
            raise InputError(f"{config.out}: one file for {len(pictures)} pictures; give a folder as --out")
        return [(pictures[0], config.out)]
    jobs = [(path, config.out / f"{path.stem}.{config.suffix}") for path in pictures]
    names = [out for _, out in jobs]
    doubled = next((out for out in names if names.count(out) > 1), None)
    if doubled is not None:
        raise InputError(f"two pictures would both become {doubled}; rename one or give them in two calls")
    return jobs


def _invert_one(path: Path, out: Path, config: Config, stated: MelSpec | None) -> tuple[float, int]:
    from sdxl_mel.sound.inversion.methods import checked_picture, invert, invert_blocks

    picture = read_spectrogram(path, stated)
    record = _record(path, picture, config)
    spec, subtype = picture.spec, SUBTYPES[config.bits] if config.bits else None
    channels = 1 if checked_picture(picture.levels, spec).shape[-1] == 1 else 2
    frames = picture.levels.shape[1]
    arguments = (picture.levels, spec, config.method, config.seed)
    if spec.law.relative_to_maximum:
        # Its levels are relative to the picture's own maximum: nobody knows how loud the sound was.
        sound = invert(*arguments, loop=config.loop, device=config.device)
        gain_db = normalising_gain_db(sound, spec.sample_rate, LOUDNESS_LUFS, TRUE_PEAK_DBTP)
        write_audio(out, sound * np.float32(10 ** (gain_db / 20)), spec.sample_rate, record, subtype, spec=spec)
        return frames * spec.hop_length / spec.sample_rate, 0
    with open_audio(out, spec.sample_rate, channels, record, subtype, spec=spec) as writer:
        for piece in invert_blocks(*arguments, loop=config.loop, device=config.device):
            writer.write(piece)
    return frames * spec.hop_length / spec.sample_rate, writer.clipped


def _record(path: Path, picture: Spectrogram, config: Config) -> Record:
    settings: dict[str, JsonValue] = {"method": config.method, "seed": config.seed, "loop": config.loop}
    if picture.record is not None:
        settings["picture"] = picture.record.model_dump(mode="json")
    return Record(stage="invert", settings=settings, inputs={path.name: sha256_file(path)})

"""`sdxl-mel encode`: sound to spectrogram pictures."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import Skipped, StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES, read_audio
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.progress import track
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS, MelSpec, named_spec

EXAMPLES = """\
  sdxl-mel encode song.flac --out tile.png --start 30
  sdxl-mel encode song.flac --out long.png --seconds 120
  sdxl-mel encode music/ --out pictures/ --preset long"""

SILENCE_DBFS = -70.0
FILES_A_PROCESS = 4
"""Fewer files than this a process do not repay starting one."""


Job = tuple[Path, Path]
"""A sound, and the picture it becomes."""
Work = Callable[[Job], InputError | None]


class Config(StageConfig):
    """Turn sound into spectrogram pictures, one tile of each file or one long picture."""

    audio: Annotated[list[Path], Show.POSITIONAL] = Field(min_length=1)
    """sound files, or folders of them"""
    out: Path
    """a .png for one sound, or a folder"""
    preset: str = "std"
    """format of the pictures: std, long, hifi, native, cheap, web, mini"""
    start: float = Field(0.0, ge=0)
    """seconds into the sound"""
    seconds: float | None = Field(None, gt=0)
    """make one long picture of this duration, rounded down to 8 frames; default: one tile"""
    jobs: Annotated[int, Show.ADVANCED] = Field(0, ge=0)
    """processes; 0 is one a core where there are enough files"""


class Report(StageReport):
    """The pictures that were written."""

    written: tuple[Path, ...]

    def summary(self) -> str:
        """Return one line."""
        return f"wrote {self.written[0] if len(self.written) == 1 else f'{len(self.written)} pictures'}"


def run(config: Config) -> Report:
    """Encode every sound; of several, those that cannot be used are skipped and reported."""
    spec = named_spec(config.preset)
    jobs = _jobs(config)
    work = partial(_encode_one, spec=spec, preset=config.preset, start=config.start, seconds=config.seconds)
    written, skipped = [], []
    for (path, out), failure in track(zip(jobs, _mapped(work, jobs, config.jobs)), len(jobs), "encoding", "sounds"):
        if failure is None:
            written.append(out)
        elif len(jobs) == 1:
            raise failure
        else:
            skipped.append(Skipped(what=str(path), why=str(failure)))
    if not written:
        raise InputError(f"none of {len(jobs)} sounds could be encoded; the first: {skipped[0].why}")
    return Report(written=tuple(written), skipped=tuple(skipped))


def _jobs(config: Config) -> list[tuple[Path, Path]]:
    """Return each sound with the picture it becomes."""
    sounds = [found for path in config.audio for found in _sounds_of(path)]
    if config.out.suffix.lower() == ".png":
        if len(sounds) > 1:
            raise InputError(f"{config.out}: one picture for {len(sounds)} sounds; give a folder as --out")
        return [(sounds[0], config.out)]
    if config.out.suffix and not config.out.is_dir():
        raise InputError(f"{config.out}: pictures are written as .png; give NAME.png or a folder as --out")
    jobs = [(path, config.out / f"{path.stem}.png") for path in sounds]
    names = [out for _, out in jobs]
    doubled = next((out for out in names if names.count(out) > 1), None)
    if doubled is not None:
        raise InputError(f"two sounds would both become {doubled}; rename one or give them in two calls")
    return jobs


def _sounds_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise InputError(f"{path}: holds no sound files ({' '.join(sorted(AUDIO_SUFFIXES))})")
    return found


def _mapped(work: Work, jobs: list[Job], processes: int) -> Iterator[InputError | None]:
    count = processes or min(os.cpu_count() or 1, len(jobs) // FILES_A_PROCESS)
    if count <= 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_single_thread) as pool:
        yield from pool.map(work, jobs)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _encode_one(
    job: tuple[Path, Path], spec: MelSpec, preset: str, start: float, seconds: float | None
) -> InputError | None:
    """Encode one sound; returned, not raised, is why it cannot be, so that the others go on."""
    path, out = job
    try:
        write_spectrogram(out, _encoded(path, spec, preset, start, seconds))
    except InputError as error:
        return error
    return None


def _encoded(path: Path, spec: MelSpec, preset: str, start: float, seconds: float | None) -> Spectrogram:
    from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal

    samples, rate = read_audio(path)
    if np.abs(samples).max() < 10.0 ** (SILENCE_DBFS / 20.0):
        raise InputError(f"{path}: silent, nothing reaches {SILENCE_DBFS:.0f} dBFS; a picture of it would be black")
    signal = prepare_signal(samples, rate, spec)
    first = round(start * spec.sample_rate)
    frames = spec.width if seconds is None else int(seconds * spec.sample_rate / spec.hop_length)
    frames -= frames % LATENT_FACTOR
    _require_long_enough(path, signal.shape[-1], first, frames, spec)
    settings = {"preset": preset, "start": start, "seconds": seconds}
    record = Record(stage="encode", settings=settings, inputs={path.name: sha256_file(path)})
    return Spectrogram(encode_clip(cut_clip(signal, first, frames, spec), spec), spec, record)


def _require_long_enough(path: Path, samples: int, first: int, frames: int, spec: MelSpec) -> None:
    rate = spec.sample_rate
    if frames == 0:
        raise InputError(f"{path}: --seconds is shorter than {LATENT_FACTOR} frames of {spec.hop_length / rate:.3f} s")
    if samples < first + frames * spec.hop_length:
        shorter = [name for name, other in PRESETS.items() if other.tile_seconds <= (samples - first) / rate]
        hint = f"; a shorter picture: --seconds, or --preset {' '.join(shorter)}" if shorter else ""
        raise InputError(
            f"{path}: {samples / rate:.2f} s long, {first / rate:.2f} s + {frames * spec.hop_length / rate:.2f} s are "
            f"needed and nothing is padded{hint}"
        )

"""Sounds to spectrogram pictures and back: arrays, files, many files, and what each step of the codec costs."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError, printable
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.audio import AUDIO_SUFFIXES, CONTAINERS, SUBTYPES, open_audio, read_audio, write_audio
from sdxl_mel.files.finding import files_given
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.metrics.codec_fidelity import fidelity, pixel_rmse
from sdxl_mel.options import Bits, Method
from sdxl_mel.progress import track
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.encoding import cut_clip, encode_clip, mel_spectrogram, prepare_signal
from sdxl_mel.sound.inversion.methods import checked_picture, invert, invert_blocks
from sdxl_mel.sound.loudness import normalising_gain_db
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS, MelSpec
from sdxl_mel.sound.pixels import quantise, values_of

__all__ = [
    "convert_files",
    "encode",
    "encode_file",
    "fidelity_ladder",
    "invert",
    "invert_file",
    "pictures_given",
    "sounds_given",
]

SILENCE_DBFS = -70.0
LOUDNESS_LUFS = -16.0
TRUE_PEAK_DBTP = -1.0
FILES_A_PROCESS = 4
"""Fewer files than this a process do not repay starting one."""

Conversion = tuple[Path, Path]
"""A file, and the file it becomes."""
Result = TypeVar("Result")


class Inverted(NamedTuple):
    """A sound file that was written: its seconds, and how many of its samples were clipped."""

    path: Path
    seconds: float
    clipped: int


def encode(
    samples: Float,
    sample_rate: int,
    spec: MelSpec,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    name: str = "the sound",
) -> Levels:
    """Return the picture (n_mels, frames, 1 or 3) of a sound (channels, n): one tile, or `seconds` of it, from `start`.

    The number of frames is a multiple of 8, as the VAE needs. Raises InputError, which calls the sound `name`, for
    silence and for a sound that is too short: nothing is padded.
    """
    if np.abs(samples).max() < 10.0 ** (SILENCE_DBFS / 20.0):
        raise InputError(f"{name}: silent, nothing reaches {SILENCE_DBFS:.0f} dBFS; a picture of it would be black")
    signal = prepare_signal(samples, sample_rate, spec)
    first = round(start * spec.sample_rate)
    frames = spec.width if seconds is None else int(seconds * spec.sample_rate / spec.hop_length)
    frames -= frames % LATENT_FACTOR
    _require_long_enough(name, signal.shape[-1], first, frames, spec)
    return encode_clip(cut_clip(signal, first, frames, spec), spec)


def _require_long_enough(name: str, samples: int, first: int, frames: int, spec: MelSpec) -> None:
    rate = spec.sample_rate
    if frames == 0:
        raise InputError(f"{name}: --seconds is shorter than {LATENT_FACTOR} frames of {spec.hop_length / rate:.3f} s")
    if samples < first + frames * spec.hop_length:
        shorter = [preset for preset, other in PRESETS.items() if other.tile_seconds <= (samples - first) / rate]
        hint = f"; a shorter picture: --seconds, or --preset {' '.join(shorter)}" if shorter else ""
        raise InputError(
            f"{name}: {samples / rate:.2f} s long, {first / rate:.2f} s + {frames * spec.hop_length / rate:.2f} s are "
            f"needed and nothing is padded{hint}"
        )


def encode_file(
    job: Conversion, spec: MelSpec, record: Record, start: float = 0.0, seconds: float | None = None
) -> Path:
    """Write the picture of a sound file with its spec and `record`, to which the sound's hash is added."""
    path, out = job
    levels = encode(*read_audio(path), spec, start=start, seconds=seconds, name=str(path))
    write_spectrogram(out, Spectrogram(levels, spec, _of(record, path)))
    return out


def invert_file(
    job: Conversion,
    record: Record,
    method: Method = "best",
    seed: int = 0,
    loop: bool = False,
    *,
    stated: MelSpec | None = None,
    bits: Bits | None = None,
    device: str | None = None,
) -> Inverted:
    """Write the sound of a picture with `record`, to which the picture's own record and its hash are added.

    `stated` is the spec of a picture that does not say it. A picture whose levels are relative to its own maximum says
    nothing of loudness: its sound is brought to -16 LUFS, at most -1 dBTP.
    """
    path, out = job
    picture = read_spectrogram(path, stated)
    spec, subtype = picture.spec, SUBTYPES[bits] if bits else None
    own = {"picture": picture.record.model_dump(mode="json")} if picture.record is not None else {}
    record = _of(record.model_copy(update={"settings": {**record.settings, **own}}), path)
    channels = 1 if checked_picture(picture.levels, spec).shape[-1] == 1 else 2
    seconds = picture.levels.shape[1] * spec.hop_length / spec.sample_rate
    if spec.law.relative_to_maximum:
        sound = invert(picture.levels, spec, method, seed, loop, device=device)
        gain_db = normalising_gain_db(sound, spec.sample_rate, LOUDNESS_LUFS, TRUE_PEAK_DBTP)
        write_audio(out, sound * np.float32(10 ** (gain_db / 20)), spec.sample_rate, record, subtype, spec=spec)
        return Inverted(out, seconds, 0)
    with open_audio(out, spec.sample_rate, channels, record, subtype, spec=spec) as writer:
        for piece in invert_blocks(picture.levels, spec, method, seed, loop, device=device):
            writer.write(piece)
    return Inverted(out, seconds, writer.clipped)


def _of(record: Record, path: Path) -> Record:
    return record.model_copy(update={"inputs": {printable(path.name): sha256_file(path)}})


def sounds_given(given: Sequence[Path], out: Path) -> tuple[list[Conversion], list[Skipped]]:
    """Return the sounds that a command line names, each with the picture it becomes, and what is left out.

    Raises InputError for a folder without any, and for several and one picture.
    """
    sounds, unusable = files_given(given, AUDIO_SUFFIXES, "sounds")
    jobs, doubled = _outputs(sounds, out, (".png",), ".png", "sounds")
    return jobs, [*doubled, *unusable]


def pictures_given(given: Sequence[Path], out: Path, suffix: str) -> tuple[list[Conversion], list[Skipped]]:
    """Return the pictures that a command line names, each with the sound it becomes, and what is left out.

    `suffix` is that of sounds in a folder. Raises InputError for a folder without any, and for several and one sound.
    """
    pictures, unusable = files_given(given, [".png"], "pictures")
    jobs, doubled = _outputs(pictures, out, CONTAINERS, suffix, "pictures")
    return jobs, [*doubled, *unusable]


def _outputs(
    paths: Sequence[Path], out: Path, single: Collection[str], suffix: str, what: str
) -> tuple[list[Conversion], list[Skipped]]:
    """Return each path with the file it becomes, and those left out, as an earlier one becomes the same file.

    The file is `out` itself where its suffix is in `single`, else one inside it. Raises InputError for several `what`
    and one file.
    """
    if out.suffix.lower() in single:
        if len(paths) > 1:
            raise InputError(f"{out}: one file for {len(paths)} {what}; give a folder as --out")
        return [(paths[0], out)], []
    sources: dict[Path, Path] = {}
    doubled: list[Skipped] = []
    for path in paths:
        made = out / f"{path.stem}{suffix}"
        if sources.setdefault(made, path) is not path:
            why = f"{sources[made]} becomes {made.name} already; rename one or give them in two calls"
            doubled.append(Skipped(what=str(path), why=why))
    return [(path, made) for made, path in sources.items()], doubled


def convert_files(
    work: Callable[[Conversion], Result], jobs: Sequence[Conversion], what: str, doing: str, processes: int = 1
) -> tuple[list[Result], tuple[Skipped, ...]]:
    """Return what `work` made of many files, and which it could not use, so that the others go on.

    `what` and `doing` are words for the progress and for errors ("sounds", "encoding"); `processes` is 0 for one a core
    where there are enough files. Raises the error of a lone job, and InputError if nothing was made.
    """
    count = processes or min(os.cpu_count() or 1, len(jobs) // FILES_A_PROCESS)
    results = map_jobs(partial(_tried, work), jobs, backend="processes" if count > 1 else "here", workers=count)
    made: list[Result] = []
    skipped: list[Skipped] = []
    # Results first, so that they are asked for what comes after the last.
    for result, (path, _) in zip(track(results, len(jobs), doing, what), jobs):
        if not isinstance(result, InputError):
            made.append(result)
        elif len(jobs) == 1:
            raise result
        else:
            skipped.append(Skipped(what=str(path), why=str(result)))
    if not made:
        raise InputError(f"none of {len(jobs)} {what} can be used; the first: {skipped[0].why}")
    return made, tuple(skipped)


def _tried(work: Callable[[Conversion], Result], job: Conversion) -> Result | InputError:
    try:
        return work(job)
    except InputError as error:
        return error


def fidelity_ladder(
    samples: Float,
    sample_rate: int,
    spec: MelSpec,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    seed: int = 0,
    name: str = "the sound",
) -> tuple[float, dict[str, dict[str, float | None]]]:
    """Return the seconds that were measured and, by step of the codec, how near its sound is to the original.

    It is a tile, or all of a shorter sound (channels, n), or `seconds`. Raises InputError, which calls it `name`, for
    less than a quarter of a second.
    """
    signal = prepare_signal(samples, sample_rate, spec)
    first = round(start * spec.sample_rate)
    frames = _measured_frames(signal.shape[-1] - first, seconds, spec, name)
    clip = cut_clip(signal, first, frames, spec)
    original = clip[:, margin(spec) : margin(spec) + frames * spec.hop_length]
    values = values_of(mel_spectrogram(clip, spec), spec)
    levels = quantise(values)
    sounds = {
        "original": original,
        "mel -> best": invert(values, spec, "best", seed),
        "8 bits -> best": invert(levels, spec, "best", seed),
        "8 bits -> fast": invert(levels, spec, "fast", seed),
    }
    return frames * spec.hop_length / spec.sample_rate, {
        step: asdict(fidelity(original, sound, spec.sample_rate)) | {"pixel_rmse": pixel_rmse(levels, sound, spec)}
        for step, sound in sounds.items()
    }


def _measured_frames(available: int, seconds: float | None, spec: MelSpec, name: str) -> int:
    wanted = spec.tile_samples if seconds is None else round(seconds * spec.sample_rate)
    if seconds is not None and wanted > available:
        raise InputError(
            f"{name}: {max(available, 0) / spec.sample_rate:.2f} s from --start on, --seconds asks for {seconds}"
        )
    frames = min(wanted, available) // spec.hop_length // LATENT_FACTOR * LATENT_FACTOR
    if frames <= 2 * LATENT_FACTOR:
        raise InputError(f"{name}: too short to measure; a quarter of a second from --start is needed")
    return frames

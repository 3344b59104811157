"""The clips of a set: which files they are, how they are decoded, and which cannot be used."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError, printable
from sdxl_mel.files.audio import AUDIO_SUFFIXES, read_audio
from sdxl_mel.files.dataset import is_dataset, read_dataset
from sdxl_mel.files.finding import find_files
from sdxl_mel.files.results import listed
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram
from sdxl_mel.metrics.signal_checks import Signal
from sdxl_mel.options import Method
from sdxl_mel.record import sha256_bytes, sha256_file
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec

CLIP_SUFFIXES = AUDIO_SUFFIXES | {".png"}
SHORTEST_SECONDS = 0.25
OFFSETS_FOLDER = "offsets"
"""Holds the same clips of a prepared dataset again, a few milliseconds later."""


@dataclass(frozen=True)
class Clip:
    """One file of a set: its name within the set, where it is, and the SHA-256 of its bytes.

    `beside` is the picture of the same name beside a sound, as `generate` writes them.
    """

    name: str
    path: Path
    sha256: str
    beside: Path | None = None

    @property
    def is_picture(self) -> bool:
        """Say whether it is a spectrogram and not a sound."""
        return self.path.suffix.lower() == ".png"


@dataclass(frozen=True)
class Decoding:
    """How pictures become sound: `method` of inversion, and the spec of pictures that carry none."""

    method: Method = "best"
    stated: MelSpec | None = None

    def key(self, clip: Clip) -> str:
        """Return the name of a decoded clip in the caches: all that decides its samples."""
        if not clip.is_picture:
            return clip.sha256
        stated = self.stated.to_json() if self.stated else ""
        return sha256_bytes(f"{clip.sha256} inverted 1 {self.method} {stated}".encode())

    def facts_key(self, clip: Clip) -> str:
        """Return the name of a clip's facts, which the picture beside a sound decides too."""
        if clip.beside is None:
            return self.key(clip)
        return sha256_bytes(f"{clip.sha256} beside {sha256_file(clip.beside)}".encode())


def find_clips(folder: Path, split: str, leave_out: Path | None = None) -> tuple[list[Clip], list[Skipped]]:
    """Return the clips of a folder, searched through and in the order of their names, and what only looks like one.

    Of a prepared dataset the pictures of `split` are taken (of its validation split if it has no such clips). A sound
    and a picture of the same name are one clip: the sound. Files below `leave_out` are not clips, nor is what a folder
    of results does not list. Raises InputError for a folder that does not exist or holds none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of sounds or of spectrogram pictures")
    paths, unusable = _dataset_files(folder, split) if is_dataset(folder) else _files(folder, leave_out)
    if not paths:
        raise InputError(f"{folder}: no sounds or pictures here; expected files such as .wav, .flac, .ogg or .png")
    clips = []
    for path in paths:
        name = printable(path.relative_to(folder).as_posix())
        try:
            clips.append(Clip(name, path, sha256_file(path), _beside(path)))
        except InputError as error:
            unusable.append(Skipped(what=name, why=str(error).removeprefix(f"{path}: ")))
    return clips, unusable


def pairs_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """Return one SHA-256 for a set of pairs, such as the name of a clip and the hash of its bytes, in any order."""
    return sha256_bytes(json.dumps(sorted(pairs)).encode())


def decode(clip: Clip, decoding: Decoding) -> Signal:
    """Return the sound of a clip. Raises InputError or FormatError for what cannot be used, silence excepted."""
    if clip.is_picture:
        picture = read_spectrogram(clip.path, decoding.stated)
        samples = invert(picture.levels, picture.spec, decoding.method, seed=0)
        signal = Signal(samples, picture.spec.sample_rate, picture)
    else:
        signal = Signal(*read_audio(clip.path))
        if clip.beside is not None:
            signal = replace(signal, picture=_picture_of(signal, clip.beside))
    seconds = signal.samples.shape[1] / signal.rate
    if seconds < SHORTEST_SECONDS:
        raise FormatError(f"{clip.path}: {seconds:.3f} s is too short to judge; {SHORTEST_SECONDS} s is the least")
    return signal


def _picture_of(signal: Signal, path: Path) -> Spectrogram | None:
    """Return the picture beside a sound if it is as long and of the same rate, None for some other picture."""
    try:
        picture = read_spectrogram(path)
    except InputError:
        return None
    expected = (picture.levels.shape[1] * picture.spec.hop_length, picture.spec.sample_rate)
    return picture if (signal.samples.shape[1], signal.rate) == expected else None


def _beside(path: Path) -> Path | None:
    picture = path.with_suffix(".png")
    return picture if picture != path and picture.is_file() else None


def _dataset_files(folder: Path, split: str) -> tuple[list[Path], list[Skipped]]:
    dataset = read_dataset(folder)
    items = dataset.splits.get(split) or dataset.splits.get("validation") or []
    return [dataset.path(item) for item in items], []


def _files(folder: Path, leave_out: Path | None) -> tuple[list[Path], list[Skipped]]:
    found = find_files(folder, CLIP_SUFFIXES, leave_out)
    usable = [path for path in listed(found.usable) if OFFSETS_FOLDER not in path.relative_to(folder).parts]
    sounds = {path.with_suffix("") for path in usable if path.suffix.lower() != ".png"}
    clips = [path for path in usable if path.suffix.lower() != ".png" or path.with_suffix("") not in sounds]
    return clips, found.unusable

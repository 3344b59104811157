"""Sound files, through libsndfile: WAV, FLAC, Ogg Vorbis, Opus and MP3, with the record in their metadata."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files import containers
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.names import near_miss
from sdxl_mel.options import Bits
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

CONTAINERS = {
    ".wav": ("WAV", "PCM_16", ("PCM_16", "PCM_24", "FLOAT")),
    ".flac": ("FLAC", "PCM_16", ("PCM_16", "PCM_24")),
    ".ogg": ("OGG", "VORBIS", ("VORBIS",)),
    ".opus": ("OGG", "OPUS", ("OPUS",)),
    ".mp3": ("MP3", "MPEG_LAYER_III", ("MPEG_LAYER_III",)),
}
"""By extension: libsndfile's container, the default subtype, and all subtypes that can be chosen."""
AUDIO_SUFFIXES = frozenset(CONTAINERS) | {".aif", ".aiff", ".w64", ".caf", ".au"}
OPUS_RATE = 48000
SUBTYPES: dict[Bits, str] = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
INTEGER_BITS = {"PCM_16": 16, "PCM_24": 24}
PIECE_SAMPLES = 1 << 16
"""Samples of each channel per write: libsndfile's Vorbis encoder keeps those of a whole call on the stack."""
MIN_MP3_SHARE = 0.98
"""Of the stated length: that of an MP3 without a length header is estimated from its bit rate, a little off."""


def read_audio(path: Path) -> tuple[Float, int]:
    """Return the samples (channels, n) of a sound file and their rate.

    Raises InputError when there is no such file, FormatError for a file that is empty, truncated, corrupt or not sound,
    and for samples that are not finite.
    """
    _require_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            declared, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True).T
            kind = file.format
    except (soundfile.SoundFileError, TypeError) as error:
        reason = str(getattr(error, "error_string", "") or "no header that says what it is").rstrip(".")
        raise FormatError(
            f"{path}: not a readable sound file ({reason}); it may be damaged, or of a kind that libsndfile does not "
            "read: convert it to WAV or FLAC"
        ) from error
    _require_whole(path, kind, samples.shape[-1], declared)
    if samples.shape[-1] == 0:
        raise FormatError(f"{path}: holds no samples")
    if not np.isfinite(samples).all():
        raise FormatError(f"{path}: holds NaN or infinite samples; export it again")
    return np.ascontiguousarray(samples), rate


def write_audio(
    path: Path,
    samples: Float,
    sample_rate: int,
    record: Record | None = None,
    subtype: str | None = None,
    *,
    spec: MelSpec | None = None,
    loop: bool = False,
) -> None:
    """Write samples (channels, n) to `path`, whole or not at all; `read_audio` is the inverse.

    The extension chooses the format, `subtype` (PCM_16, PCM_24, FLOAT) the precision. Samples beyond full scale are
    clipped, except with FLOAT. Opus is resampled to 48 kHz. A WAV that is a `loop` gets loop points.
    """
    with open_audio(path, sample_rate, samples.shape[0], record, subtype, spec=spec, loop=loop) as writer:
        writer.write(samples)


class AudioWriter:
    """Writes a sound piece by piece and counts the samples that were clipped."""

    def __init__(self, file: soundfile.SoundFile, resampler: soxr.ResampleStream | None, exact: bool = False) -> None:
        self.file, self.resampler, self.exact = file, resampler, exact
        self.clipped = 0

    def write(self, samples: Float, last: bool = False) -> None:
        """Append samples (channels, n)."""
        frames = samples.T if self.resampler is None else self.resampler.resample_chunk(samples.T, last=last)
        if self.file.subtype != "FLOAT":
            self.clipped += int(np.count_nonzero(np.abs(frames) > 1.0))
        bits = INTEGER_BITS.get(self.file.subtype)
        if self.exact and bits is not None:
            full = 2.0 ** (bits - 1)
            levels = np.clip(np.rint(frames * np.float64(full)), -full, full - 1).astype(np.int32)
            frames = levels << (32 - bits)
        for start in range(0, frames.shape[0], PIECE_SAMPLES):
            self.file.write(frames[start : start + PIECE_SAMPLES])


@contextmanager
def open_audio(
    path: Path,
    sample_rate: int,
    channels: int,
    record: Record | None = None,
    subtype: str | None = None,
    *,
    spec: MelSpec | None = None,
    exact: bool = False,
    loop: bool = False,
) -> Iterator[AudioWriter]:
    """Yield a writer of a sound file that appears at `path` when the block succeeds; see `write_audio`.

    With `exact` samples that were read of integers become those integers again (libsndfile reads them as k / 2^n and
    writes x (2^n - 1)).
    """
    container, subtype = _container(path, subtype)
    # Escaped to ASCII: ID3 comments are Latin-1.
    comment = json.dumps(_provenance(spec, record)) if spec or record else None
    rate = OPUS_RATE if subtype == "OPUS" else sample_rate
    resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, channels, dtype="float32")
    with atomic_path(path) as temporary:
        with soundfile.SoundFile(temporary, "w", rate, channels, subtype, format=container) as file:
            if comment and container != "WAV":
                file.comment = comment
            writer = AudioWriter(file, resampler, exact)
            yield writer
            if resampler is not None:
                writer.write(np.zeros((channels, 0), dtype=np.float32), last=True)
        if container == "WAV":
            containers.clear_wav_peak_time(temporary)
            if loop:
                containers.add_wav_loop(temporary, rate, soundfile.info(temporary).frames)
            if comment:
                containers.add_wav_comment(temporary, comment)
        if container == "OGG":
            containers.clear_ogg_serial(temporary)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the "melspec" and the "record" that `write_audio` put into a file, where they are there."""
    _require_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            comment = containers.read_wav_comment(path) if file.format == "WAV" else file.comment
        found = json.loads(comment or "{}")
    except soundfile.SoundFileError as error:
        raise FormatError(f"{path}: not a readable sound file") from error
    except json.JSONDecodeError:
        return {}  # Another program's comment.
    return found if isinstance(found, dict) and found.keys() <= {"melspec", "record"} else {}


def _provenance(spec: MelSpec | None, record: Record | None) -> dict[str, Any]:
    parts = {"melspec": spec, "record": record}
    return {name: part.model_dump(mode="json") for name, part in parts.items() if part is not None}


def _container(path: Path, subtype: str | None) -> tuple[str, str]:
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{path}: cannot write {suffix or 'a file without extension'}; use {', '.join(CONTAINERS)}")
    container, default, allowed = CONTAINERS[suffix]
    if subtype is not None and subtype not in allowed:
        raise InputError(
            f"{path}: {suffix} has no {subtype}{near_miss(subtype, allowed)}; it can be {', '.join(allowed)}"
        )
    return container, subtype or default


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected a sound file")
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: an empty file")


def _require_whole(path: Path, kind: str, found: int, declared: int) -> None:
    cut = found < declared * (MIN_MP3_SHARE if kind == "MP3" else 1.0)
    if kind == "WAV":
        cut |= containers.wav_missing_bytes(path) > 0
    if kind == "OGG":
        cut |= not containers.ogg_is_whole(path)
    if cut:
        raise FormatError(f"{path}: the file is cut off or damaged; it holds less sound than it says")

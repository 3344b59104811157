"""Sound files, through libsndfile: WAV, FLAC, Ogg Vorbis, Opus and MP3, with the record in their metadata."""

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from pydantic import JsonValue

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files import containers, ogg
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.opening import first_bytes
from sdxl_mel.files.recording import Recording, Sequential, decoding, system_name
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
AUDIO_SUFFIXES = frozenset(
    [*CONTAINERS, ".oga", ".wave", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"]
)
OPUS_RATE = 48000
SUBTYPES: dict[Bits, str] = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
INTEGER_BITS = {"PCM_16": 16, "PCM_24": 24}
PIECE_SAMPLES = 1 << 16
"""Samples of each channel per write: libsndfile's Vorbis encoder keeps those of a whole call on the stack."""


def read_audio(path: Path) -> tuple[Float, int]:
    """Return the samples (channels, n) of a sound file and their rate.

    Raises InputError when there is no such file, FormatError for a file that is empty, truncated, corrupt or not sound,
    and for samples that are not finite. What a header states of the length is an estimate: a sound is read to its end,
    and one that was joined from several files is all of them.
    """
    recording = Recording.open(path)
    blocks = list(recording.blocks())
    if not blocks:
        raise FormatError(f"{path}: holds no samples")
    return np.concatenate(blocks, axis=1), recording.rate


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
    container, subtype = require_container(path, subtype)
    # Escaped to ASCII: ID3 comments are Latin-1.
    comment = json.dumps(_provenance(spec, record)) if spec or record else None
    rate = OPUS_RATE if subtype == "OPUS" else sample_rate
    resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, channels, dtype="float32")
    with atomic_path(path) as temporary:
        with soundfile.SoundFile(system_name(temporary), "w", rate, channels, subtype, format=container) as file:
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
            ogg.clear_serial(temporary)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the "melspec" and the "record" that `write_audio` put into a file, where they are there."""
    first_bytes(path, "a sound file")
    with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first, *others = containers.links(content)
        with decoding(path), Sequential(BytesIO(first) if others else raw) as file:
            comment = containers.read_wav_comment(first) if file.format == "WAV" else file.comment
    try:
        found = parse_json(comment or "{}")
    except ValueError:
        return {}  # Another program's comment.
    ours = isinstance(found, dict) and found.keys() <= {"melspec", "record"}
    return found if ours and all(isinstance(part, dict) for part in found.values()) else {}


def sound_description(path: Path) -> dict[str, JsonValue]:
    """Return what a sound file is, for people, and its spec and record where it has them."""
    recording = Recording.open(path)
    return {
        "kind": f"sound, {recording.container} {recording.subtype}",
        "sample_rate": recording.rate,
        "channels": recording.channels,
        "seconds": None if recording.stated is None else round(recording.stated / recording.rate, 6),
        **read_provenance(path),
    }


def _provenance(spec: MelSpec | None, record: Record | None) -> dict[str, Any]:
    parts = {"melspec": spec, "record": record}
    return {name: part.model_dump(mode="json") for name, part in parts.items() if part is not None}


def require_container(path: Path, subtype: str | None) -> tuple[str, str]:
    """Return container and precision of a file by its extension. Raises InputError for what cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{path}: cannot write {suffix or 'a file without extension'}; use {', '.join(CONTAINERS)}")
    container, default, allowed = CONTAINERS[suffix]
    if subtype is not None and subtype not in allowed:
        raise InputError(
            f"{path}: {suffix} has no {subtype}{near_miss(subtype, allowed)}; it can be {', '.join(allowed)}"
        )
    return container, subtype or default

"""Sound files, through libsndfile: WAV, FLAC, Ogg Vorbis, Opus and MP3, with the record in their metadata."""

import json
import mmap
import os
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
from sdxl_mel.files import containers, mpeg
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.opening import first_bytes
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
BLOCK_SAMPLES = 1 << 20
UNKNOWN_LENGTH = 1 << 62
"""From here on libsndfile's number of samples says that a file does not state it."""
LOWEST_RATE, HIGHEST_RATE, MOST_CHANNELS = 1_000, 1_000_000, 64
"""Of music; a damaged header states others, and a rate of 1 Hz would be resampled to a file that fills the memory."""


def read_audio(path: Path) -> tuple[Float, int]:
    """Return the samples (channels, n) of a sound file and their rate.

    Raises InputError when there is no such file, FormatError for a file that is empty, truncated, corrupt or not sound,
    and for samples that are not finite. What a header states of the length is an estimate: a sound is read to its end,
    and one that was joined from several files is all of them.
    """
    first_bytes(path, "a sound file")
    with _readable(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        parts = [_samples(path, sound) for sound in _sounds_in(path, content)]
    rates, channels = {rate for _, rate in parts}, {len(samples) for samples, _ in parts}
    if len(rates) > 1 or len(channels) > 1:
        raise FormatError(
            f"{path}: joined from sounds of {' and '.join(map(str, sorted(rates)))} Hz and "
            f"{' and '.join(map(str, sorted(channels)))} channels; give them as files of their own"
        )
    samples = np.concatenate([samples for samples, _ in parts], axis=1)
    if samples.shape[-1] == 0:
        raise FormatError(f"{path}: holds no samples")
    if not np.isfinite(samples).all():
        raise FormatError(f"{path}: holds NaN or infinite samples; export it again")
    return samples, rates.pop()


def _sounds_in(path: Path, content: mmap.mmap) -> list[Path | BytesIO]:
    """Return a file's sounds, in order, as libsndfile reads them to their end: nearly always the file itself.

    Raises FormatError for a file that is cut off.
    """
    tags = mpeg.after_tags(content)
    untagged = content[tags:] if tags else content
    sound = containers.sound_chunk(untagged)
    if sound is not None:
        if containers.is_of_unknown_size(untagged, sound):
            return [BytesIO(containers.with_size(untagged, sound))]
        if containers.missing_bytes(untagged, sound):
            raise _cut_off(path)
        return [BytesIO(untagged) if isinstance(untagged, bytes) else path]
    if untagged[:4] in (b"OggS", b"fLaC"):
        if untagged[:4] == b"OggS" and not containers.ogg_is_whole(untagged):
            raise _cut_off(path)
        links = containers.ogg_links(untagged) if untagged[:4] == b"OggS" else containers.flac_links(untagged)
        return [BytesIO(link) for link in links] if len(links) > 1 or tags else [path]
    streams = mpeg.streams(untagged)
    if any(stream.is_damaged for stream in streams):
        raise _cut_off(path)
    return [BytesIO(stream.content()) for stream in streams] or [path]


def _samples(path: Path, sound: Path | BytesIO) -> tuple[Float, int]:
    """Return the samples (channels, n) and the rate of one of a file's sounds, read block by block to its end."""
    with _Sequential(_name(sound) if isinstance(sound, Path) else sound) as file:
        declared, rate, channels = file.frames, file.samplerate, file.channels
        if not LOWEST_RATE <= rate <= HIGHEST_RATE or channels > MOST_CHANNELS:
            raise FormatError(f"{path}: states {rate} Hz and {channels} channels, which no music has; export it again")
        blocks = [np.zeros((channels, 0), dtype=np.float32)]
        found = 0
        while len(block := file.read(min(BLOCK_SAMPLES, declared - found), dtype="float32", always_2d=True)):
            blocks.append(block.T)
            found += len(block)
        if declared < UNKNOWN_LENGTH and found < declared * (mpeg.MIN_SHARE if file.format == "MP3" else 1.0):
            raise _cut_off(path)
    return np.concatenate(blocks, axis=1), rate


class _Sequential(soundfile.SoundFile):
    """A sound file that is read from start to end: a FLAC that does not state its length cannot be sought in."""

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek after each block."""
        return False


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn every failure of the decoder into FormatError."""
    try:
        yield
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        reason = str(getattr(error, "error_string", "") or "no header that says what it is").rstrip(".")
        raise FormatError(
            f"{path}: not a readable sound file ({reason}); it may be damaged, or of a kind that libsndfile does not "
            "read: convert it to WAV or FLAC"
        ) from error


def _cut_off(path: Path) -> FormatError:
    return FormatError(f"{path}: the file is cut off or damaged; it holds less sound than it says")


def _name(path: Path) -> bytes | str:
    """Return a path as soundfile takes it; it encodes text strictly, and a name need not be UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


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
        with soundfile.SoundFile(_name(temporary), "w", rate, channels, subtype, format=container) as file:
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
    first_bytes(path, "a sound file")
    with _readable(path), _Sequential(_name(path)) as file:
        comment = file.comment
        if file.format == "WAV":
            with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
                comment = containers.read_wav_comment(content)
    try:
        found = parse_json(comment or "{}")
    except ValueError:
        return {}  # Another program's comment.
    ours = isinstance(found, dict) and found.keys() <= {"melspec", "record"}
    return found if ours and all(isinstance(part, dict) for part in found.values()) else {}


def sound_description(path: Path) -> dict[str, JsonValue]:
    """Return what a sound file is, for people, and its spec and record where it has them."""
    provenance = read_provenance(path)
    with _readable(path), _Sequential(_name(path)) as file:
        known = file.frames < UNKNOWN_LENGTH
        return {
            "kind": f"sound, {file.format} {file.subtype}",
            "sample_rate": file.samplerate,
            "channels": file.channels,
            "seconds": round(file.frames / file.samplerate, 6) if known else None,
            **provenance,
        }


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

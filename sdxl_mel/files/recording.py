"""Sound files read block by block to their end, so that memory does not grow with their length.

What a header states of the length is an estimate, and a file may hold several sounds, one after the other.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError
from sdxl_mel.files import containers, flac, mpeg, ogg
from sdxl_mel.files.containers import Content
from sdxl_mel.files.opening import first_bytes

BLOCK_SAMPLES = 1 << 18
UNKNOWN_LENGTH = 1 << 56
"""From here on libsndfile's number of samples says that a file does not state it."""
LOWEST_RATE, HIGHEST_RATE, MOST_CHANNELS = 1_000, 1_000_000, 64
"""Of music; a damaged header states others, and a rate of 1 Hz would be resampled to a file that fills the memory."""

NO_FRAME = "File does not exist"
NO_HEADER = "no header that says what it is"


class _Format(NamedTuple):
    samples: int
    container: str
    rate: int
    channels: int
    subtype: str


@dataclass(frozen=True)
class Recording:
    """A sound file that can be read any number of times; `container` and `subtype` are libsndfile's names.

    `stated` is how many samples it says to hold, None where it does not say.
    """

    path: Path
    stated: int | None
    container: str
    rate: int
    channels: int
    subtype: str
    _sounds: tuple[Path | BytesIO, ...]

    @classmethod
    def open(cls, path: Path) -> "Recording":
        """Open a sound file. Raises InputError where there is none, FormatError for one that is cut off or no sound."""
        first_bytes(path, "a sound file")
        with decoding(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            sounds = tuple(_sounds_in(path, content))
            formats = [_format(path, sound) for sound in sounds]
        rates, channels = {each.rate for each in formats}, {each.channels for each in formats}
        if len(rates) > 1 or len(channels) > 1:
            raise FormatError(
                f"{path}: joined from sounds of {' and '.join(map(str, sorted(rates)))} Hz and "
                f"{' and '.join(map(str, sorted(channels)))} channels; give them as files of their own"
            )
        stated = sum(each.samples for each in formats)
        return cls(path, stated if stated < UNKNOWN_LENGTH else None, *formats[0][1:], sounds)

    def blocks(self) -> Iterator[Float]:
        """Yield all samples in blocks (channels, n), to the end that the decoder finds.

        Raises FormatError where decoding fails or the file is cut off, and for samples that are not finite.
        """
        with decoding(self.path):
            for sound in self._sounds:
                for block in _blocks(self.path, sound):
                    if not np.isfinite(block).all():
                        raise FormatError(f"{self.path}: holds NaN or infinite samples; export it again")
                    yield np.ascontiguousarray(block.T)


class Sequential(soundfile.SoundFile):
    """A sound file that is read from start to end: a FLAC that does not state its length cannot be sought in."""

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek after each block."""
        return False


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn every failure of the decoder into FormatError."""
    try:
        yield
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        said = str(getattr(error, "error_string", ""))
        # What libsndfile says of an MP3 in which no frame is found is not so: the file has been opened already.
        raise _unreadable(path, NO_HEADER if not said or said.startswith(NO_FRAME) else said.rstrip(".")) from error


def system_name(path: Path) -> bytes | str:
    """Return a path as soundfile takes it; it encodes text strictly, and a name need not be UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _sounds_in(path: Path, content: mmap.mmap) -> list[Path | BytesIO]:
    """Return a file's sounds, in order: nearly always the file itself. Raises FormatError for one that is cut off."""
    tags = mpeg.after_tags(content)
    parts = _parts(path, content[tags:] if tags else content)
    return [path] if parts[0] is content else [BytesIO(part) for part in parts]


def _parts(path: Path, content: Content) -> list[Content]:
    """Return what a file was joined from, each part so that libsndfile reads it to its end."""
    if containers.sound_chunk(content) is not None:
        return [_of_right_size(path, part) for part in containers.links(content)]
    if content[:4] == b"OggS":
        if not ogg.is_whole(content):
            raise _cut_off(path)
        return [ogg.without_length(link) if ogg.understates(link) else link for link in ogg.links(content)]
    if content[:4] == b"fLaC":
        return [flac.without_length(link) if flac.understates(link) else link for link in flac.links(content)]
    streams = mpeg.streams(content)
    if any(stream.is_damaged for stream in streams):
        raise _cut_off(path)
    if not streams and mpeg.begins_with_a_frame(content):
        raise _unreadable(path, NO_HEADER)  # The decoder would look for more, and speak of that to the terminal.
    return [stream.content() for stream in streams] or [content]


def _of_right_size(path: Path, content: Content) -> Content:
    sound = containers.sound_chunk(content)
    if sound is None:
        return content
    if containers.is_of_unknown_size(content, sound):
        return containers.with_size(content, sound)
    if containers.missing_bytes(content, sound):
        raise _cut_off(path)
    return content


@contextmanager
def _opened(sound: Path | BytesIO) -> Iterator[Sequential]:
    """Yield an open sound. It is opened without its name: libsndfile would believe an extension (.mp3, .au, .snd)."""
    if isinstance(sound, BytesIO):
        sound.seek(0)
    with nullcontext(sound) if isinstance(sound, BytesIO) else sound.open("rb") as content, Sequential(content) as file:
        yield file


def _format(path: Path, sound: Path | BytesIO) -> _Format:
    with _opened(sound) as file:
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE or file.channels > MOST_CHANNELS:
            raise FormatError(
                f"{path}: states {file.samplerate} Hz and {file.channels} channels, which no music has; export it again"
            )
        return _Format(file.frames, file.format, file.samplerate, file.channels, file.subtype)


def _blocks(path: Path, sound: Path | BytesIO) -> Iterator[Float]:
    """Yield the samples (n, channels) of one of a file's sounds."""
    with _opened(sound) as file:
        declared, found = file.frames, 0
        while len(block := file.read(min(BLOCK_SAMPLES, declared - found), dtype="float32", always_2d=True)):
            yield block
            found += len(block)
        if declared < UNKNOWN_LENGTH and found < declared * (mpeg.MIN_SHARE if file.format == "MP3" else 1.0):
            raise _cut_off(path)


def _unreadable(path: Path, reason: str) -> FormatError:
    return FormatError(
        f"{path}: not a readable sound file ({reason}); it may be damaged, or of a kind that libsndfile does not read: "
        "convert it to WAV or FLAC"
    )


def _cut_off(path: Path) -> FormatError:
    return FormatError(f"{path}: the file is cut off or damaged; it holds less sound than it says")

"""The samples of a track, wherever its audio is."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.arrays import Float
from sdxl_mel.corpus.tracks import render_track
from sdxl_mel.dataset.folder_source import arrow_bytes
from sdxl_mel.dataset.tracks import ArrowRow, AudioPlace
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import read_audio
from sdxl_mel.record import sha256_bytes, sha256_file


@dataclass(frozen=True)
class OpenedAudio:
    """Audio that can be decoded, and the SHA-256 of what it will be decoded from."""

    sha256: str
    samples: Callable[[], tuple[Float, int]]


@contextmanager
def opened(audio: AudioPlace) -> Iterator[OpenedAudio]:
    """Yield audio that is decoded, (channels, n) and its rate, only when asked for.

    Raises InputError or FormatError for what is missing or cannot be decoded.
    """
    if isinstance(audio, Path):
        try:
            sha256 = sha256_file(audio)
        except OSError as error:
            raise InputError(f"{audio}: cannot be read ({error.strerror})") from error
        yield OpenedAudio(sha256, lambda: read_audio(audio))
    elif isinstance(audio, ArrowRow):
        content = arrow_bytes(audio)
        with tempfile.TemporaryDirectory(prefix="sdxl-mel-") as folder:
            path = Path(folder) / "audio"
            path.write_bytes(content)
            yield OpenedAudio(sha256_bytes(content), lambda: read_audio(path))
    else:
        plan = audio
        yield OpenedAudio(sha256_bytes(repr(plan).encode()), lambda: render_track(plan))

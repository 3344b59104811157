"""The samples of a track, wherever its audio is."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdxl_mel.arrays import Float
from sdxl_mel.corpus.tracks import render_track
from sdxl_mel.dataset.folder_source import arrow_bytes
from sdxl_mel.dataset.tracks import ArrowRow, AudioPlace
from sdxl_mel.files.audio import read_audio
from sdxl_mel.record import sha256_bytes, sha256_file


@contextmanager
def opened(audio: AudioPlace) -> Iterator[tuple[str, Callable[[], tuple[Float, int]]]]:
    """Yield the SHA-256 of audio, and what decodes it when asked: to samples (channels, n) and their rate.

    Raises InputError or FormatError for what is missing or cannot be decoded.
    """
    if isinstance(audio, Path):
        yield sha256_file(audio), lambda: read_audio(audio)
    elif isinstance(audio, ArrowRow):
        content = arrow_bytes(audio)
        with tempfile.TemporaryDirectory(prefix="sdxl-mel-") as folder:
            path = Path(folder) / "audio"
            path.write_bytes(content)
            yield sha256_bytes(content), lambda: read_audio(path)
    else:
        plan = audio
        yield sha256_bytes(repr(plan).encode()), lambda: render_track(plan)

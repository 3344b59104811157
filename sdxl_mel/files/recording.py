"""A sound file read block by block, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError, InputError

BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Recording:
    """A sound file that can be read any number of times; `subtype` is libsndfile's name of its samples."""

    path: Path
    rate: int
    channels: int
    subtype: str

    @classmethod
    def open(cls, path: Path) -> "Recording":
        """Open a sound file. Raises InputError where there is none, FormatError for what is not sound."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            found = soundfile.info(path)
        except soundfile.SoundFileError as error:
            raise FormatError(f"{path}: not a readable sound file; convert it to WAV or FLAC") from error
        return cls(path, found.samplerate, found.channels, found.subtype)

    def blocks(self) -> Iterator[Float]:
        """Yield all samples in blocks (channels, n), to the end that the decoder finds.

        Raises FormatError where decoding fails and for samples that are not finite.
        """
        try:
            with soundfile.SoundFile(self.path) as file:
                while (block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)).size:
                    if not np.isfinite(block).all():
                        raise FormatError(f"{self.path}: holds NaN or infinite samples; export it again")
                    yield np.ascontiguousarray(block.T)
        except soundfile.SoundFileError as error:
            raise FormatError(f"{self.path}: the file is damaged ({error}); convert it to WAV or FLAC") from error

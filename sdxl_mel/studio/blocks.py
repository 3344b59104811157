"""The finished blocks of a sound that is still being made: files that, one after the other, are its samples."""

from collections import defaultdict
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.arrays import Float
from sdxl_mel.files.audio import write_audio


class Blocks:
    """Writes blocks into a folder as 16-bit WAV, so that they hold the samples of the file that follows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._samples: defaultdict[str, list[int]] = defaultdict(list)

    def write(self, name: str, samples: Float, rate: int) -> dict[str, JsonValue]:
        """Write the next block of a result's sound, and return where it is in the whole, in samples."""
        before = self._samples[name]
        number, first = len(before), sum(before)
        before.append(samples.shape[-1])
        write_audio(block_path(self.folder, name, number), samples, rate)
        return {"result": name, "number": number, "first": first, "samples": samples.shape[-1], "rate": rate}


def block_path(folder: Path, name: str, number: int) -> Path:
    """Return the file of a block."""
    return folder / f"{name}-{number:04}.wav"

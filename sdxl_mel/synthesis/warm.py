"""A generator that stays open between commands: only what a command asks for otherwise is opened anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdxl_mel.models.lora.file import read_loras
from sdxl_mel.synthesis.generator import Generator

MOST_TEXTS = 200
"""Embeddings of texts that are kept: half a megabyte each, in SDXL."""

Stamp = tuple[tuple[str, int, int], ...]


class WarmGenerator:
    """Opens what `Generator.open` opens, and keeps it for the next call.

    The base is opened anew where it, its VAE, its device, its precision, what is stated of it, or its files differ;
    LoRAs are read every time and exchanged.
    """

    def __init__(self) -> None:
        self.generator: Generator | None = None
        self._opened: Any = None

    @property
    def base(self) -> str | None:
        """Return the name of the base that is open."""
        return None if self.generator is None else self.generator.models.base.name

    def open(
        self, base: str, *, loras: Sequence[str | Path] = (), scales: Sequence[float] = (), **opening: Any
    ) -> Generator:
        """Return a generator as `Generator.open` does; what it opens stays open."""
        wanted = (base, opening, stamp(base), stamp(opening.get("vae")))
        if self.generator is not None and self._opened == wanted:
            self.generator.reattach(read_loras([str(lora) for lora in loras], scales))
        else:
            # Let go first: two bases need twice the memory.
            self.generator = self._opened = None
            self.generator = Generator.open(base, loras=loras, scales=scales, **{**opening, "keep_base": True})
            self._opened = wanted
        if len(self.generator.texts) > MOST_TEXTS:
            self.generator.texts.clear()
        return self.generator


def stamp(source: str | None) -> Stamp:
    """Return name, size and time of the files of a base or VAE; none for a name that is not a file or folder."""
    path = Path(source or "")
    files = sorted(each for each in path.rglob("*") if each.is_file()) if source and path.is_dir() else [path]
    return tuple((str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file())

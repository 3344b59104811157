"""A base that stays open between commands: only what a command asks for otherwise is opened anew."""

from pathlib import Path
from typing import Any

from sdxl_mel.models.base import Base
from sdxl_mel.synthesis.generator import Generator

OPENING = ("vae", "dtype", "device", "offload", "slicing")
"""What decides how the models of a base are opened; all else is decided for every generator anew."""


class WarmBase:
    """Opens what `Generator.open` opens, on the base of the call before where that is the same, and its files are."""

    def __init__(self) -> None:
        self.generator: Generator | None = None
        self._opened: Any = None

    def open(self, base: str, **opening: Any) -> Generator:
        """Return a generator as `Generator.open` does; that of the call before can draw no more."""
        wanted = (base, *(opening.get(name) for name in OPENING), stamp(base), stamp(opening.get("vae")))
        kept: Base | None = None
        if self.generator is not None and self._opened == wanted:
            kept = self.generator.release()
        # Let go first: two bases need twice the memory.
        self.generator = self._opened = None
        self.generator = Generator.open(base, **{**opening, "keep_base": True}, opened=kept)
        self._opened = wanted
        return self.generator


def stamp(source: str | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of the files of a base or VAE; none for a name that is not a file or folder."""
    path = Path(source or "")
    files = sorted(each for each in path.rglob("*") if each.is_file()) if source and path.is_dir() else [path]
    return tuple((str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file())

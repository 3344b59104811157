"""Arrays that a benchmark keeps in a folder, so that a table that was interrupted goes on where it stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdxl_mel.files.atomic import atomic_path


@dataclass(frozen=True)
class Kept:
    """A folder of arrays by name; a name has to say everything that decides its array."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return where an array lies."""
        return self.folder / f"{name}.npy"

    def array(self, name: str, make: Callable[[], Any]) -> Any:
        """Return an array from the folder, made first where it is not there."""
        path = self.path(name)
        if not path.exists():
            made = make()
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, made)
        return np.load(path)

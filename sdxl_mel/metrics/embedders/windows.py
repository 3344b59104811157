"""How a clip is cut for a model that hears a fixed length: exact, deterministic, no random crop and no silent tail."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class WindowRule:
    """Windows of `length` from the start, without overlap; lengths in samples or frames.

    A last piece of at least `shortest` is repeated until it fills a window; a shorter one is left out, unless it is all
    there is.
    """

    length: int
    shortest: int

    def cut(self, signal: Float) -> Float:
        """Return the windows (count, length, ...) of a signal (n, ...), n >= 1; there is always at least one."""
        whole = len(signal) // self.length
        windows = [signal[start : start + self.length] for start in range(0, whole * self.length, self.length)]
        rest = signal[whole * self.length :]
        if len(rest) >= self.shortest or not whole:
            windows.append(np.take(rest, np.arange(self.length), axis=0, mode="wrap"))
        return np.stack(windows)

    def __str__(self) -> str:
        return f"windows of {self.length} from 0, last piece of {self.shortest} or more repeated to fill one"

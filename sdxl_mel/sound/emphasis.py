"""Pre-emphasis of pictures that were made with it, and its inverse."""

import numpy as np
import scipy.signal

from sdxl_mel.sound.mel import Float


def emphasise(samples: Float, coefficient: float) -> Float:
    """Return y[n] = x[n] - coefficient * x[n - 1] of (channels, n) samples; `Deemphasis` is the inverse."""
    if coefficient == 0.0:
        return samples
    return scipy.signal.lfilter([1.0, -coefficient], [1.0], samples, axis=-1).astype(np.float32)


class Deemphasis:
    """x[n] = y[n] + coefficient * x[n - 1], for a signal that comes in pieces (channels, n)."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient
        self.state: Float | None = None

    def __call__(self, samples: Float) -> Float:
        """Return the next piece, filtered."""
        if self.coefficient == 0.0:
            return samples
        state = np.zeros((samples.shape[0], 1), dtype=np.float32) if self.state is None else self.state
        filtered, self.state = scipy.signal.lfilter([1.0], [1.0, -self.coefficient], samples, axis=-1, zi=state)
        return filtered.astype(np.float32)

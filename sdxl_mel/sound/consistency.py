"""How far a picture is from being the spectrogram of any sound: what its own sound looks like, compared with it."""

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.sound.encoding import cut_clip, encode_clip
from sdxl_mel.sound.inversion import invert
from sdxl_mel.sound.melspec import MelSpec

Levels = NDArray[np.uint8]


def inconsistency(levels: Levels, spec: MelSpec, seed: int = 0) -> float:
    """Return the RMS difference in pixel levels between a picture and the picture of its (fast) inversion."""
    frames = levels.shape[1]
    samples = invert(levels, spec, method="fast", seed=seed)
    again = encode_clip(cut_clip(samples, 0, frames, spec), spec)
    difference = again.astype(np.float32) - levels.astype(np.float32)
    return float(np.sqrt(np.mean(difference**2)))

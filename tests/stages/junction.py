"""How much the junction of a loop stands out in its sound file."""

from pathlib import Path

import numpy as np

from sdxl_mel.files.audio import read_audio
from sdxl_mel.sound.encoding import cut_clip, encode_clip
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import junction_score


def junction_of_sound(path: Path, frames: int, spec: MelSpec) -> float:
    """Return the flux z-score of the junction, in the picture of the sound played three times."""
    samples, _ = read_audio(path)
    assert samples.shape[1] == frames * spec.hop_length
    thrice = np.tile(samples, 3)
    return junction_score(dequantise(encode_clip(cut_clip(thrice, samples.shape[1], frames, spec), spec)))

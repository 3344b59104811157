"""How well a sound has the mel spectrogram of its picture: spectral convergence."""

import numpy as np

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.metrics.codec_fidelity import EDGE_FRAMES, SILENCE
from sdxl_mel.sound.encoding import cut_clip, mel_spectrogram
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values


def spectral_convergence_db(target: Float, estimate: Float) -> float:
    """Return 20 log10(|S - E| / |S|) of two magnitude spectrograms, in dB; lower is better."""
    ratio = float(np.linalg.norm(target - estimate)) / max(float(np.linalg.norm(target)), SILENCE)
    return 20.0 * float(np.log10(max(ratio, SILENCE)))


def self_consistency_db(levels: Levels, samples: Float, spec: MelSpec) -> float:
    """Return the spectral convergence, in dB, of a picture's mel values against those of its own sound."""
    frames = levels.shape[1]
    target = mel_of_values(dequantise(levels), spec)
    found = mel_spectrogram(cut_clip(samples, 0, frames, spec), spec)
    inner = slice(EDGE_FRAMES, frames - EDGE_FRAMES)
    target, found = target[:, inner], found[:, inner]
    if spec.law.relative_to_maximum:
        # The picture does not say how loud it is: the gain that fits best is free.
        found = found * (np.vdot(target, found) / max(float(np.vdot(found, found)), SILENCE**2))
    return spectral_convergence_db(target, found)

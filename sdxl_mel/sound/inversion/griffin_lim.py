"""librosa's own inversion, the known reference that ours is measured against."""

import librosa
import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.sound.mel import stft_gain
from sdxl_mel.sound.melspec import MelSpec

ITERATIONS = 64


def librosa_griffin_lim(mel: Float, spec: MelSpec, seed: int, iterations: int = ITERATIONS) -> Float:
    """Return the sound (1 or 2, frames * hop_length) of mel values (n_mels, frames, 1 or 3), each channel by itself."""
    channels = [mel[..., 0], mel[..., 2]] if mel.shape[-1] == 3 else [mel[..., 0]]
    return np.stack([_invert_channel(channel, spec, seed, iterations) for channel in channels])


def _invert_channel(mel: Float, spec: MelSpec, seed: int, iterations: int) -> Float:
    # librosa's n frames are n - 1 hops of sound: one frame more for the last hop.
    mel = np.concatenate([mel, mel[:, -1:]], axis=1)
    power = 1.0 if spec.quantity == "amplitude" else 2.0
    magnitude = librosa.feature.inverse.mel_to_stft(
        mel / stft_gain(spec) ** power,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        power=power,
        fmin=spec.fmin,
        fmax=spec.fmax,
        htk=spec.mel_scale == "htk",
        norm=spec.mel_norm,
    )
    sound: Float = librosa.griffinlim(
        magnitude,
        n_iter=iterations,
        hop_length=spec.hop_length,
        win_length=spec.win_length,
        n_fft=spec.n_fft,
        center=True,
        random_state=seed,
    )
    return sound.astype(np.float32)

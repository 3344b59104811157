"""Plain statistics of the mel spectrogram as an embedding: no model, a second opinion and a fallback."""

import librosa
import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.metrics.embedders.base import AudioEmbedder, WindowRule
from sdxl_mel.record import sha256_bytes

SAMPLE_RATE = 16000
N_FFT, HOP, N_MELS = 1024, 256, 64
PATCH = WindowRule(length=187, shortest=63)
"""In frames: 3 s, and 1 s."""


class MelEmbedder(AudioEmbedder):
    """192 numbers for each 3 s: mean, spread and mean change of the log level of each of 64 bands."""

    name = "mel"
    rate = SAMPLE_RATE
    windows = f"3 s of 187 frames; {PATCH}"
    weights = sha256_bytes(f"mel statistics 1: {N_FFT} {HOP} {N_MELS}".encode())

    def embed_audio(self, samples: Float) -> Float:
        """Return the statistics (windows, 192) of mono samples at 16 kHz.

        The mean over all bands is taken from the means, so that loudness alone does not make two sounds alike.
        """
        mel = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
        patches = PATCH.cut(np.log10(1e4 * mel.T + 1.0).astype(np.float32))
        means = patches.mean(1)
        change = np.abs(np.diff(patches, axis=1)).mean(1)
        return np.concatenate([means - means.mean(1, keepdims=True), patches.std(1), change], axis=1)

"""musicnn (Pons and Serra, 2019): a pretrained music tagger, as an embedding and as tags.

The network is `musicnn/models.py` of the PyPI package `musicnn` 0.1.0 (ISC licence, Music Technology Group, UPF), layer
for layer; its weights were converted once by tools/convert_musicnn.py and are part of this package.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import librosa
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError, first_line
from sdxl_mel.files.header import parse_json
from sdxl_mel.metrics.embedders.base import AudioEmbedder, WindowRule

SAMPLE_RATE = 16000
N_FFT, HOP, N_MELS = 512, 256, 96
PATCH = WindowRule(length=187, shortest=63)
"""In frames: the 3 s the models were trained on, and 1 s."""
BATCH = 4
"""More at once is slower on a CPU: the front end's activations leave the cache."""
FRONT = ((204, 7, 38), (204, 7, 67), (51, 128, 1), (51, 64, 1), (51, 32, 1))
"""Filters, frames and bands of the first convolutions: two shapes for timbre, three for rhythm."""
FRONT_CHANNELS = sum(filters for filters, _, _ in FRONT)
MIDDLE_CHANNELS, MIDDLE_FRAMES = 64, 7
HIDDEN, TAGS = 200, 50

Which = Literal["mtt", "msd"]


class MusicnnEmbedder(AudioEmbedder):
    """The 200 numbers before the tags, one vector for each 3 s; `which` is MagnaTagATune or Million Song Dataset."""

    rate = SAMPLE_RATE
    windows = f"3 s of 187 frames; {PATCH}"

    def __init__(self, which: Which) -> None:
        self.name = f"musicnn-{which}"
        with as_file(files("sdxl_mel").joinpath(f"assets/musicnn/{which}.safetensors")) as path:
            self._network, metadata = read_musicnn(path)
        self.labels: tuple[str, ...] = tuple(parse_json(metadata["tags"]))
        # Of the checkpoint it was converted from: embeddings cached before the conversion are the same.
        self.weights = metadata["source_sha256"]

    def embed_audio(self, samples: Float) -> Float:
        """Return the penultimate activations (windows, 200) of mono samples at 16 kHz."""
        return self._run(samples)[0]

    def tags(self, samples: Float) -> Float:
        """Return the probability of each of `labels` in each window, (windows, 50)."""
        return np.asarray(1.0 / (1.0 + np.exp(-self._run(samples)[1])), dtype=np.float32)

    def _run(self, samples: Float) -> tuple[Float, Float]:
        patches = torch.from_numpy(PATCH.cut(log_mel(samples)))
        with torch.inference_mode():
            outputs = [self._network(batch) for batch in patches.split(BATCH)]
        return torch.cat([one for one, _ in outputs]).numpy(), torch.cat([two for _, two in outputs]).numpy()


def log_mel(samples: Float) -> Float:
    """Return musicnn's input (frames, 96) of mono samples at 16 kHz.

    Upstream keeps the mel values as float16 and multiplies there, which overflows above 6.55; we keep the rounding.
    """
    mel = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
    rounded = np.minimum(mel.T, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)
    return np.log10(10000.0 * rounded + 1.0).astype(np.float32)


def read_musicnn(path: Path) -> tuple["Musicnn", dict[str, str]]:
    """Return the network and the metadata of a converted checkpoint. Raises FormatError for another or damaged file."""
    network = Musicnn()
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, RuntimeError) as error:
        why = first_line(error)
        raise FormatError(f"{path}: not musicnn's converted weights ({why}); install sdxl-mel again") from error
    return network.eval(), metadata


class Musicnn(nn.Module):
    """The network: patches (b, frames, 96) to penultimate activations (b, 200) and tag logits (b, 50)."""

    def __init__(self) -> None:
        super().__init__()
        front = [nn.Conv2d(1, filters, (frames, bands)) for filters, frames, bands in FRONT]
        widths = (FRONT_CHANNELS, MIDDLE_CHANNELS, MIDDLE_CHANNELS)
        middle = [nn.Conv2d(1, MIDDLE_CHANNELS, (MIDDLE_FRAMES, width)) for width in widths]
        pooled = 2 * (FRONT_CHANNELS + len(widths) * MIDDLE_CHANNELS)
        self.convolutions = nn.ModuleList(front + middle)
        channels = (1, *(convolution.out_channels for convolution in front + middle), pooled, HIDDEN)
        self.norms = nn.ModuleList(_Norm(count) for count in channels)
        self.hidden, self.tags = nn.Linear(pooled, HIDDEN), nn.Linear(HIDDEN, TAGS)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return penultimate activations (b, 200) and logits (b, tags) of patches (b, frames, 96)."""
        features = self._middle(self._front(patches))
        # TensorFlow flattens (b, feature, [max, mean]): the two alternate.
        pooled = torch.stack([features.amax(2), features.mean(2)], dim=2).flatten(1)
        hidden = self.norms[10](F.relu(self.hidden(self.norms[9](pooled))))
        return hidden, self.tags(hidden)

    def _front(self, patches: Tensor) -> Tensor:
        """Return timbral and temporal features, (b, 561, frames): each the loudest over frequency."""
        image = self.norms[0](patches[:, None])
        branches = []
        for convolution, norm in zip(self.convolutions[:5], self.norms[1:6], strict=True):
            activations = F.relu(convolution(_padded(image, convolution)))
            branches.append(norm(activations).amax(3))
        return torch.cat(branches, dim=1)

    def _middle(self, front: Tensor) -> Tensor:
        """Return the front end and three convolutions over time, the last two residual, (b, 753, frames)."""
        outputs = [front]
        for index in range(5, 8):
            convolution = self.convolutions[index]
            padded = _padded(outputs[-1].transpose(1, 2)[:, None], convolution)
            fresh = self.norms[index + 1](F.relu(convolution(padded)).squeeze(3))
            outputs.append(fresh if index == 5 else fresh + outputs[-1])
        return torch.cat(outputs, dim=1)


class _Norm(nn.Module):
    """Batch normalisation at inference: a scale and a shift for each channel (dimension 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.empty(channels))
        self.register_buffer("shift", torch.empty(channels))

    def forward(self, values: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (values.ndim - 2)
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return values * scale.view(shape) + shift.view(shape)


def _padded(image: Tensor, convolution: Any) -> Tensor:
    """Pad time as TensorFlow's "same" does: the smaller half before."""
    kernel = convolution.kernel_size[0]
    before = (kernel - 1) // 2
    return F.pad(image, (0, 0, before, kernel - 1 - before))

"""musicnn (Pons and Serra, 2019): a pretrained music tagger, as an embedding and as tags, without TensorFlow.

The weights are those of the PyPI package `musicnn` (ISC licence, Music Technology Group, UPF), read from its TF1
checkpoints. The network is `musicnn/models.py` of that package, layer for layer.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Any, Literal

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sdxl_mel.arrays import Float
from sdxl_mel.errors import MissingError
from sdxl_mel.metrics.embedders.base import WindowRule
from sdxl_mel.metrics.embedders.tf_checkpoint import read_tensor_bundle
from sdxl_mel.record import sha256_file

SAMPLE_RATE = 16000
N_FFT, HOP, N_MELS = 512, 256, 96
PATCH = WindowRule(length=187, shortest=63)
"""In frames: the 3 s the models were trained on, and 1 s."""
BATCH = 4
"""More at once is slower on a CPU: the front end's activations leave the cache."""
BATCH_NORM_EPS = 1e-3
"""TensorFlow's default; torch's is 1e-5."""
HOW_TO_GET = "pip install --no-deps musicnn==0.1.0 (its own requirements are obsolete)"

Which = Literal["mtt", "msd"]


class MusicnnEmbedder:
    """The 200 numbers before the tags, one vector for each 3 s; `which` is MagnaTagATune or Million Song Dataset."""

    rate = SAMPLE_RATE
    windows = f"3 s of 187 frames; {PATCH}"

    def __init__(self, which: Which) -> None:
        folder = _package_folder() / f"{which.upper()}_musicnn"
        self.name = f"musicnn-{which}"
        self.weights = sha256_file(folder / ".data-00000-of-00001")
        self.labels = _labels(which)
        self._network = Musicnn(read_tensor_bundle(folder)).eval()

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


class Musicnn(nn.Module):
    """The network: patches (b, frames, 96) to penultimate activations (b, 200) and tag logits (b, 50)."""

    def __init__(self, tensors: dict[str, NDArray[np.generic]]) -> None:
        super().__init__()
        names = ["conv2d"] + [f"conv2d_{number}" for number in range(1, 8)]
        self.convolutions = nn.ModuleList(_convolution(tensors, name) for name in names)
        norms = ["batch_normalization"] + [f"batch_normalization_{number}" for number in range(1, 11)]
        self.norms = nn.ModuleList(_Norm(tensors, name) for name in norms)
        self.dense, self.tag = _dense(tensors, "dense"), _dense(tensors, "dense_1")

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return penultimate activations (b, 200) and logits (b, tags) of patches (b, frames, 96)."""
        features = self._middle(self._front(patches))
        # TensorFlow flattens (b, feature, [max, mean]): the two alternate.
        pooled = torch.stack([features.amax(2), features.mean(2)], dim=2).flatten(1)
        hidden = self.norms[10](F.relu(self.dense(self.norms[9](pooled))))
        return hidden, self.tag(hidden)

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

    def __init__(self, tensors: dict[str, NDArray[np.generic]], name: str) -> None:
        super().__init__()
        gamma, beta, mean, variance = (
            np.asarray(tensors[f"{name}/{part}"], dtype=np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(beta - mean * scale, dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (values.ndim - 2)
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return values * scale.view(shape) + shift.view(shape)


def _convolution(tensors: dict[str, NDArray[np.generic]], name: str) -> nn.Conv2d:
    kernel = np.ascontiguousarray(np.transpose(tensors[f"{name}/kernel"], (3, 2, 0, 1)))
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], (kernel.shape[2], kernel.shape[3]))
    layer.weight.data.copy_(torch.from_numpy(kernel))
    layer.bias.data.copy_(torch.from_numpy(tensors[f"{name}/bias"].copy()))  # type: ignore[union-attr]
    return layer


def _dense(tensors: dict[str, NDArray[np.generic]], name: str) -> nn.Linear:
    kernel = np.ascontiguousarray(tensors[f"{name}/kernel"].T)
    layer = nn.Linear(kernel.shape[1], kernel.shape[0])
    layer.weight.data.copy_(torch.from_numpy(kernel))
    layer.bias.data.copy_(torch.from_numpy(tensors[f"{name}/bias"].copy()))
    return layer


def _padded(image: Tensor, convolution: Any) -> Tensor:
    """Pad time as TensorFlow's "same" does: the smaller half before."""
    kernel = convolution.kernel_size[0]
    before = (kernel - 1) // 2
    return F.pad(image, (0, 0, before, kernel - 1 - before))


def _package_folder() -> Path:
    found = importlib.util.find_spec("musicnn")
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"the musicnn package is not installed; {HOW_TO_GET}")
    return Path(found.submodule_search_locations[0])


def _labels(which: Which) -> tuple[str, ...]:
    """Return the tag names from the package's configuration.py, which is read and not run."""
    tree = ast.parse((_package_folder() / "configuration.py").read_text(encoding="utf-8"))
    wanted = f"{which.upper()}_LABELS"
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == wanted:
            return tuple(ast.literal_eval(node.value))
    raise MissingError(f"this musicnn package has no {wanted}; {HOW_TO_GET}")

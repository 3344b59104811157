"""Fitting the instrument oracle that judges a mini base, and writing it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sdxl_mel.corpus.instruments import INSTRUMENTS
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.metrics.oracle import Oracle, Pictures, statistics

L2 = 3e-3
"""Weight of the squared weights beside the mean cross-entropy; chosen on held-out pieces."""
FIT_STEPS = 150


def fit_oracle(
    pictures: Pictures, instruments: Sequence[Sequence[str]], chorales: Sequence[bool], labels: Sequence[str] = ()
) -> Oracle:
    """Fit the oracle to tiles (n, n_mels, frames), who plays in each and whether it is a chorale; deterministic."""
    names = tuple(labels) or tuple(INSTRUMENTS)
    features = statistics(pictures)
    mean, scale = features.mean(0), features.std(0) + 1e-3
    wanted = [
        [float(name in playing) for name in names] + [float(style)] for playing, style in zip(instruments, chorales)
    ]
    inputs, targets = torch.from_numpy((features - mean) / scale), torch.tensor(wanted)
    weight = torch.zeros(inputs.shape[1], targets.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weight + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
        loss = loss + L2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return Oracle(names, mean, scale, weight.detach().numpy(), bias.detach().numpy())


def chorales(oracle: Oracle, pictures: Pictures) -> NDArray[np.bool_]:
    """Return for each tile whether it is a chorale rather than a folk tune."""
    return oracle.logits(pictures)[:, -1] > 0


def save_oracle(path: Path, oracle: Oracle) -> None:
    """Write an oracle as safetensors; `load_oracle` is the inverse."""
    tensors = {"mean": oracle.mean, "scale": oracle.scale, "weight": oracle.weight, "bias": oracle.bias}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"labels": ",".join(oracle.labels)})

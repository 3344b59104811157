"""From mel values to the linear magnitudes that they most likely came from.

Multiplicative updates for the Kullback-Leibler divergence (Richardson 1972, Lucy 1974; Lee and Seung 2001):
X <- X * (M^T (V / (M X))) / (M^T 1). They keep X non-negative and need no matrix inverse.
"""

from concurrent.futures import Executor
from functools import lru_cache

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from sdxl_mel.execution import stop_if_asked
from sdxl_mel.sound.mel import apply_bank, filter_bank, filter_tensor, sparse_tensor
from sdxl_mel.sound.melspec import MelSpec

TINY = 1e-12
LARGEST_GAIN = 1e3
CHUNK_FRAMES = 192


def mel_to_linear(mel: Tensor, spec: MelSpec, iterations: int, workers: Executor | None = None) -> Tensor:
    """Return STFT magnitudes (channels, frames, n_bins) of mel values (channels, n_mels, frames)."""
    # A few columns at a time stay in the cache of a CPU; a GPU takes all at once.
    columns = CHUNK_FRAMES if mel.device.type == "cpu" else mel.shape[-1]
    mapped = map if workers is None else workers.map
    parts = []
    for part in mapped(lambda part: _mel_to_linear(part, spec, iterations), mel.split(columns, dim=-1)):
        stop_if_asked()
        parts.append(part)
    amplitude = torch.cat(parts, dim=1)
    return amplitude if spec.quantity == "amplitude" else amplitude.sqrt_()


def _mel_to_linear(mel: Tensor, spec: MelSpec, iterations: int) -> Tensor:
    bins = _mean_over_bands(mel, spec) * _coverage(spec, str(mel.device))
    for _ in range(iterations):
        bins *= _gain(bins, mel, spec)
    return bins.transpose(-1, -2)


def multiplicative_update(amplitude: Tensor, mel: Tensor, spec: MelSpec) -> Tensor:
    """Return magnitudes (channels, frames, n_bins) moved one step towards the mel values (channels, n_mels, frames).

    Inside phase retrieval this lets the targets follow the sound: joint estimation of magnitude and phase is better
    than one after the other (Masuyama et al. 2023, arXiv 2307.12232).
    """
    power = 1.0 if spec.quantity == "amplitude" else 2.0
    bins = (amplitude if power == 1.0 else amplitude.square()).transpose(-1, -2)
    gain = _gain(bins, mel, spec).clamp_max_(LARGEST_GAIN)
    gain = gain if power == 1.0 else gain.sqrt_()
    return amplitude * gain.transpose(-1, -2)


def _gain(bins: Tensor, mel: Tensor, spec: MelSpec) -> Tensor:
    """Return the factor of each bin in one update."""
    ratio = mel / apply_bank(filter_tensor(spec, str(bins.device)), bins).clamp_min_(TINY)
    return _mean_over_bands(ratio, spec)


def _mean_over_bands(rows: Tensor, spec: MelSpec) -> Tensor:
    """Return the weighted mean of each bin's bands, M^T rows / M^T 1; zero where there is no band."""
    return apply_bank(_normalised_transpose(spec, str(rows.device)), rows)


@lru_cache(maxsize=8)
def _coverage(spec: MelSpec, device: str) -> Tensor:
    """Return how much the bands cover each bin, (n_bins, 1): 1, less beyond the lowest and the highest band centre.

    Only one band covers a bin there, and does not tell where on its slope a sound is: most likely near the centre.
    """
    bank = filter_bank(spec)
    peaks = bank.max(axis=1).toarray()
    covered = np.minimum(bank.multiply(1.0 / peaks[:, None]).sum(axis=0), 1.0)
    return torch.from_numpy(covered.astype(np.float32))[:, None].to(device)


@lru_cache(maxsize=8)
def _normalised_transpose(spec: MelSpec, device: str) -> Tensor:
    bank = scipy.sparse.csr_array(filter_bank(spec).T)
    totals = np.maximum(bank.sum(axis=1), TINY)
    return sparse_tensor(scipy.sparse.csr_array(bank.multiply(1.0 / totals[:, None])), device)

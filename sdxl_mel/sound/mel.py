"""STFT and mel filter bank of a MelSpec, as torch tensors on any device; the bins are the last axis.

Frame t is centred on sample t * hop_length of the clip. A clip needs `margin(spec)` samples of its surroundings on each
side; nothing is padded here. On the CPU torch's transform took 12 ms where scipy.fft took 30 (rfft
and irfft of 1024 frames of 4096 points, one thread), so one implementation serves both devices.
"""

import math
import warnings
from functools import lru_cache

import numpy as np
import scipy.signal
import scipy.sparse
import torch
from librosa.filters import mel as librosa_bank
from torch import Tensor

from sdxl_mel.sound.melspec import MelSpec

WINDOW_SUM_FLOOR = 1e-4
"""Smallest divisor, as a share of the steady sum of squared windows: samples at the ends are hardly covered."""


def margin(spec: MelSpec) -> int:
    """Return how many samples before and after a clip its first and last frame cover."""
    return spec.win_length // 2 if spec.centred else (spec.win_length - spec.hop_length) // 2


def reach(frames: int, spec: MelSpec) -> int:
    """Return how many samples `frames` frames cover, from the first sample of the first to the last of the last."""
    return (frames - 1) * spec.hop_length + spec.win_length


def stft_gain(spec: MelSpec) -> float:
    """Return what the plain Hann STFT is multiplied by, so that `spec.scale` holds."""
    return 4.0 / spec.win_length if spec.scale == "sine" else 1.0


@lru_cache(maxsize=16)
def window(spec: MelSpec, device: str = "cpu") -> Tensor:
    """Return the periodic Hann window of `win_length` samples, times `stft_gain`."""
    hann = scipy.signal.get_window("hann", spec.win_length, fftbins=True) * stft_gain(spec)
    return torch.from_numpy(hann.astype(np.float32)).to(device)


@lru_cache(maxsize=8)
def filter_bank(spec: MelSpec) -> scipy.sparse.csr_array:
    """Return the mel filter bank, (n_mels, n_bins), sparse; row 0 is the lowest band."""
    dense = librosa_bank(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
        htk=spec.mel_scale == "htk",
        norm=spec.mel_norm,
        dtype=np.float32,
    )
    return scipy.sparse.csr_array(dense)


def bins_below_fmin(spec: MelSpec) -> int:
    """Return how many bins lie below the lowest band: a picture says nothing of them, not even that they are silent."""
    return int(np.floor(spec.fmin * spec.n_fft / spec.sample_rate)) + 1


@lru_cache(maxsize=16)
def filter_tensor(spec: MelSpec, device: str) -> Tensor:
    """Return the filter bank as a sparse tensor."""
    return sparse_tensor(filter_bank(spec), device)


def sparse_tensor(matrix: scipy.sparse.csr_array, device: str) -> Tensor:
    """Return a sparse matrix as a tensor in rows (CSR), whose products took a quarter of the time of COO's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        rows, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(rows, columns, values, matrix.shape, check_invariants=True).to(device)


def stft(samples: Tensor, spec: MelSpec) -> Tensor:
    """Return the STFT of (..., at least reach(frames)) samples as complex (..., frames, n_bins)."""
    frames = samples.unfold(-1, spec.win_length, spec.hop_length)
    padded = frames.new_empty(*frames.shape[:-1], spec.n_fft)
    torch.mul(frames, window(spec, str(samples.device)), out=padded[..., : spec.win_length])
    padded[..., spec.win_length :] = 0
    return torch.fft.rfft(padded)


def windowed_frames(spectrum: Tensor, spec: MelSpec) -> Tensor:
    """Return the windowed frames (..., frames, win_length) of a spectrum, to be overlap-added."""
    return torch.fft.irfft(spectrum, n=spec.n_fft)[..., : spec.win_length] * window(spec, str(spectrum.device))


def divided_by_window_sum(total: Tensor, frames: int, spec: MelSpec, loop: bool) -> Tensor:
    """Return overlap-added windowed frames divided by the sum of the squared windows.

    Griffin and Lim 1984, equation 6: these are the samples (..., reach(frames)) whose STFT is nearest to the spectrum
    of the frames in least squares. With `loop` the frames lie on a circle of frames * hop_length samples, and the
    margins repeat the other end.
    """
    return (wrap_margins(total, frames, spec) if loop else total) / _window_sum(spec, frames, str(total.device), loop)


def wrap_margins(total: Tensor, frames: int, spec: MelSpec) -> Tensor:
    """Return (..., reach(frames)) samples whose margins are added to the clip's other end, and repeat that end."""
    length, before = frames * spec.hop_length, margin(spec)
    after = total.shape[-1] - before - length
    circle = total[..., before : before + length].clone()
    circle[..., length - before :] += total[..., :before]
    circle[..., :after] += total[..., before + length :]
    return torch.cat([circle[..., length - before :], circle, circle[..., :after]], dim=-1)


def overlap_add(pieces: Tensor, hop_length: int) -> Tensor:
    """Return the sum of (..., frames, win_length) pieces laid `hop_length` apart, (..., reach)."""
    frames, length = pieces.shape[-2:]
    shifts = math.ceil(length / hop_length)
    if shifts * hop_length != length:
        pieces = torch.nn.functional.pad(pieces, (0, shifts * hop_length - length))
    rows = pieces.reshape(*pieces.shape[:-1], shifts, hop_length)
    total = pieces.new_zeros(*pieces.shape[:-2], frames + shifts - 1, hop_length)
    for shift in range(shifts):
        total[..., shift : shift + frames, :] += rows[..., shift, :]
    return total.reshape(*total.shape[:-2], -1)[..., : (frames - 1) * hop_length + length]


def magnitude(spectrum: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the absolute values of a complex tensor, written into `out` if given."""
    if spectrum.device.type == "cpu":
        # numpy's vectorised abs is ten times as fast as torch's, and shares the memory.
        return torch.from_numpy(np.abs(spectrum.numpy(), out=None if out is None else out.numpy()))
    return torch.abs(spectrum, out=out)


def mel_of(amplitudes: Tensor, spec: MelSpec) -> Tensor:
    """Return the mel spectrogram (..., n_mels, frames) of STFT magnitudes (..., frames, n_bins)."""
    source = amplitudes if spec.quantity == "amplitude" else amplitudes.square()
    return apply_bank(filter_tensor(spec, str(source.device)), source.transpose(-1, -2))


def apply_bank(bank: Tensor, columns: Tensor) -> Tensor:
    """Return bank @ columns for (..., rows, frames) columns."""
    result = columns.new_empty(*columns.shape[:-2], bank.shape[0], columns.shape[-1])
    parts = result.view(-1, *result.shape[-2:])
    for one, out in zip(columns.reshape(-1, *columns.shape[-2:]), parts):
        torch.mm(bank, _in_rows(one), out=out)
    return result


def _in_rows(matrix: Tensor) -> Tensor:
    if matrix.device.type == "cpu":
        # numpy transposes in three fifths of torch's time.
        return torch.from_numpy(np.ascontiguousarray(matrix.numpy()))
    return matrix.contiguous()


@lru_cache(maxsize=32)
def _window_sum(spec: MelSpec, frames: int, device: str, loop: bool) -> Tensor:
    squares = window(spec, device).square()
    total = overlap_add(squares.expand(frames, -1), spec.hop_length)
    total = wrap_margins(total, frames, spec) if loop else total
    return total.clamp_min(float(squares.sum()) / spec.hop_length * WINDOW_SUM_FLOOR)

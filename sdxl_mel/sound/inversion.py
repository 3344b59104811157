"""Picture to sound: mel values to linear magnitudes, then to samples, in blocks of bounded memory."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sdxl_mel.errors import InputError
from sdxl_mel.sound.blocks import Effort, retrieved_blocks
from sdxl_mel.sound.emphasis import Deemphasis
from sdxl_mel.sound.mel import Float
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import mel_of_values
from sdxl_mel.sound.reference import librosa_griffin_lim

Method = Literal["best", "fast", "griffinlim"]

EFFORTS = {
    "fast": Effort(demel=20, reflections=24, coupled=24, final=8),
    "best": Effort(demel=30, reflections=80, coupled=40, final=24),
}


def invert(
    picture: NDArray[np.generic],
    spec: MelSpec,
    method: Method = "best",
    seed: int = 0,
    loop: bool = False,
    *,
    device: str | None = None,
) -> Float:
    """Return the sound (1 or 2, frames * hop_length) of a picture (n_mels, frames[, 1 or 3]).

    `picture` holds 8-bit levels or values in 0..1, row 0 the lowest band. With `loop` the end joins the beginning.
    The same seed gives the same sound on the same device; `device` is CUDA when there, else the CPU.
    """
    return np.concatenate(list(invert_blocks(picture, spec, method, seed, loop, device=device)), axis=-1)


def invert_blocks(
    picture: NDArray[np.generic],
    spec: MelSpec,
    method: Method = "best",
    seed: int = 0,
    loop: bool = False,
    *,
    device: str | None = None,
) -> Iterator[Float]:
    """Yield the sound of `invert` piece by piece, in memory that does not grow with the length of the picture.

    The blocks overlap. Each begins with the phase of the sound before it and must agree with what was given out, so
    the pieces are one signal. `griffinlim` is librosa's own and works on the whole picture at once.
    """
    values = checked_values(picture, spec)
    if method == "griffinlim":
        yield Deemphasis(spec.preemphasis)(librosa_griffin_lim(mel_of_values(values, spec), spec, seed))
        return
    if loop and values.shape[1] * spec.hop_length < spec.win_length:
        raise InputError(f"{values.shape[1]} frames are shorter than one window; too short for a loop")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    filtered = Deemphasis(spec.preemphasis)
    for piece in retrieved_blocks(values, spec, EFFORTS[method], seed, loop=loop, device=place):
        yield filtered(piece.cpu().numpy())


def checked_values(picture: NDArray[np.generic], spec: MelSpec) -> Float:
    """Return a picture as values (n_mels, frames, 1 or 3); channels that should be equal but are not are averaged.

    Raises InputError for another number of rows or channels, for no frames and for values that are not numbers.
    """
    values = np.asarray(picture, dtype=np.float32) / np.float32(255.0 if picture.dtype == np.uint8 else 1.0)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[0] != spec.n_mels or values.shape[-1] not in (1, 3) or values.shape[1] == 0:
        raise InputError(f"a picture of shape {picture.shape} is not ({spec.n_mels}, frames, 1 or 3) as its spec says")
    if not np.isfinite(values).all():
        raise InputError("the picture holds NaN or infinite values")
    values = np.clip(values, 0.0, 1.0)
    equal = values.shape[-1] == 1 or bool((values[..., :1] == values).all())
    if equal:
        return values[..., :1]
    return values.mean(axis=-1, keepdims=True) if spec.channels == "grey" else values

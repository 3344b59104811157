"""Picture to sound: mel values to linear magnitudes, then to samples, in blocks of bounded memory."""

from collections.abc import Iterator

import numpy as np
import torch

from sdxl_mel.arrays import Float
from sdxl_mel.errors import InputError
from sdxl_mel.options import Method
from sdxl_mel.sound.encoding import Deemphasis
from sdxl_mel.sound.inversion.blockwise import Iterations, Picture, retrieved_blocks
from sdxl_mel.sound.inversion.griffin_lim import librosa_griffin_lim
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values

EFFORTS = {
    "fast": Iterations(demel=20, reflections=24, coupled=24, final=8),
    "best": Iterations(demel=30, reflections=80, coupled=40, final=24),
}


def invert(
    picture: Picture,
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
    picture: Picture,
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
    checked = checked_picture(picture, spec)
    if method == "griffinlim":
        values = dequantise(checked) if checked.dtype == np.uint8 else checked
        yield Deemphasis(spec.preemphasis)(librosa_griffin_lim(mel_of_values(values, spec), spec, seed))
        return
    if loop and checked.shape[1] * spec.hop_length < spec.win_length:
        raise InputError(f"{checked.shape[1]} frames are shorter than one window; too short for a loop")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    filtered = Deemphasis(spec.preemphasis)
    for piece in retrieved_blocks(checked, spec, EFFORTS[method], seed, loop=loop, device=place):
        yield filtered(piece.cpu().numpy())


def checked_picture(picture: Picture, spec: MelSpec) -> Picture:
    """Return levels or values in 0..1 (n_mels, frames, 1 or 3); channels that should be equal but are not are averaged.

    Raises InputError for another number of rows or channels, for no frames and for values that are not numbers.
    """
    shaped = picture[..., None] if picture.ndim == 2 else picture
    if shaped.ndim != 3 or shaped.shape[0] != spec.n_mels or shaped.shape[-1] not in (1, 3) or shaped.shape[1] == 0:
        raise InputError(f"a picture of shape {picture.shape} is not ({spec.n_mels}, frames, 1 or 3) as its spec says")
    if shaped.dtype != np.uint8:
        if not np.isfinite(shaped).all():
            raise InputError("the picture holds NaN or infinite values")
        shaped = np.clip(shaped, 0.0, 1.0, dtype=np.float32)
    if all(np.array_equal(shaped[..., 0], shaped[..., channel]) for channel in range(1, shaped.shape[-1])):
        return shaped[..., :1]
    if spec.channels == "lmr":
        return shaped
    scale = np.float32(255.0 if shaped.dtype == np.uint8 else 1.0)
    return shaped.mean(axis=-1, keepdims=True, dtype=np.float32) / scale

"""Picture to sound: the methods by name, and the checks before them and the filter after them that all share."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch

from sdxl_mel.arrays import Float
from sdxl_mel.devices import find_device
from sdxl_mel.errors import InputError
from sdxl_mel.options import Method
from sdxl_mel.sound.encoding import Deemphasis
from sdxl_mel.sound.inversion.blockwise import Between, Iterations, retrieve_phase
from sdxl_mel.sound.inversion.griffin_lim import librosa_griffin_lim
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import Picture, dequantise, mel_of_values


class InversionMethod(Protocol):
    """A way to invert; a new one is a function of this kind in METHODS, and its name in `options.Method`."""

    def __call__(self, picture: Picture, spec: MelSpec, seed: int, *, loop: bool, device: str) -> Iterator[Float]:
        """Yield the sound (1 or 2, samples) of levels or values (n_mels, frames, 1 or 3), still pre-emphasised."""


def griffin_lim(picture: Picture, spec: MelSpec, seed: int, *, loop: bool, device: str) -> Iterator[Float]:
    """Yield the whole sound by librosa, on the CPU. Raises InputError for a loop, which librosa cannot close."""
    if loop:
        raise InputError("griffinlim cannot close a loop; use best or fast")
    yield librosa_griffin_lim(mel_of_values(dequantise(picture), spec), spec, seed)


ITERATIONS = {
    "best": Iterations(mel_to_linear=30, raar=80, stereo=40, final=24),
    "fast": Iterations(mel_to_linear=20, raar=24, stereo=24, final=8),
}
METHODS: dict[Method, InversionMethod] = {
    "best": partial(retrieve_phase, iterations=ITERATIONS["best"]),
    "fast": partial(retrieve_phase, iterations=ITERATIONS["fast"]),
    "griffinlim": griffin_lim,
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
    """Yield the sound of `invert` block by block; only `griffinlim` works on the whole picture at once."""
    deemphasis = Deemphasis(spec.preemphasis)
    place = find_device(device) if device else "cuda" if torch.cuda.is_available() else "cpu"
    for sound in METHODS[method](checked_picture(picture, spec), spec, seed, loop=loop, device=place):
        yield deemphasis(sound)


def invert_between(
    picture: Picture,
    spec: MelSpec,
    read: Callable[[int, int], Float],
    method: Method = "best",
    seed: int = 0,
    *,
    begins: bool = False,
    ends: bool = False,
) -> Iterator[Float]:
    """Yield the sound (1 or 2, n) of a picture, but of its first and last KNOWN_FRAMES, whose sound is known.

    `read` (first sample, last sample) returns that sound (1 or 2, n); sample 0 is the picture's first frame. What is
    made continues it, except where it `begins` or `ends` a sound. Raises InputError for a method that cannot.
    """
    if method not in ITERATIONS:
        raise InputError(f"{method} cannot continue a sound; use {' or '.join(ITERATIONS)}")
    checked = checked_picture(picture, spec)

    def read_channels(start: int, stop: int) -> Float:
        sound = read(start, stop)
        return sound.mean(axis=0, keepdims=True) if checked.shape[-1] == 1 else sound

    between = Between.read(read_channels, checked.shape[1], spec)
    between = Between(None if begins else between.before, None if ends else between.after)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    return retrieve_phase(checked, spec, seed, loop=False, device=place, iterations=ITERATIONS[method], between=between)


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

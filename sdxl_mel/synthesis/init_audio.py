"""The sound a result starts from: read, brought to one tile, and encoded as known latents."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.sampling import Known
from sdxl_mel.durations import seconds_of
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES, read_audio
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.vae import encode_levels
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.blend import blend, raised_cosine
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec, require_equal
from sdxl_mel.synthesis.settings import InitFile


@dataclass(frozen=True)
class Init:
    """A tile to start from, its hash, how far to go from it, and the frames of the gap to fill, if any."""

    levels: Levels
    sha256: str
    strength: float
    gap: tuple[int, int] | None

    def known(self, vae: Any, spec: MelSpec) -> Known:
        """Return the tile as latents, free everywhere or in the gap alone."""
        latents = encode_levels(vae, self.levels, spec, "--init")
        if self.gap is None:
            return Known(latents, torch.ones(1, 1, 1, 1))
        mask = torch.zeros(1, 1, 1, latents.shape[-1])
        mask[..., self.gap[0] // LATENT_FACTOR : self.gap[1] // LATENT_FACTOR] = 1
        return Known(latents, mask)

    @property
    def walked(self) -> float:
        """Return how much of the sampling steps is done: all of them unless the whole tile is varied."""
        return self.strength if self.gap is None else 1.0

    def restored(self, drawn: Levels, spec: MelSpec) -> Levels:
        """Return a drawn picture with what was outside the gap as it was before the VAE, faded over at its edges."""
        if self.gap is None:
            return drawn
        first, after = self.gap
        weights = np.zeros(drawn.shape[1], np.float32)
        weights[first:after] = 1
        fade = raised_cosine(min(LATENT_FACTOR, (after - first) // 2))
        if first > 0:
            weights[first : first + len(fade)] = fade
        if after < drawn.shape[1]:
            weights[after - len(fade) : after] = fade[::-1]
        return blend(self.levels, drawn, weights, spec)


def read_init(file: InitFile, spec: MelSpec) -> Init:
    """Read a sound or one of our pictures as one tile. Raises InputError where there is not enough of it."""
    first = round(file.start * spec.sample_rate / spec.hop_length)
    if file.path.suffix.lower() in AUDIO_SUFFIXES:
        signal = prepare_signal(*read_audio(file.path), spec)
        levels = encode_clip(cut_clip(signal, first * spec.hop_length, spec.width, spec), spec)
    else:
        levels = _tile_of_picture(file.path, first, spec)
    return Init(levels, sha256_file(file.path), file.strength, _gap(file.inpaint, spec))


def _tile_of_picture(path: Path, first: int, spec: MelSpec) -> Levels:
    picture = read_spectrogram(path, spec)
    require_equal(picture.spec, spec, f"--init {path}", "the model")
    tile = picture.levels[:, first : first + spec.width]
    if tile.shape[1] < spec.width:
        raise InputError(f"--init {path}: {tile.shape[1]} frames from there, a tile has {spec.width}")
    return tile if spec.channels == "lmr" else tile[..., :1]


def _gap(text: str | None, spec: MelSpec) -> tuple[int, int] | None:
    """Return the frames of `1.5-3` seconds, widened to whole latent columns."""
    if text is None:
        return None
    match = re.fullmatch(r"([\d:.]+)\s*-\s*([\d:.]+)", text.strip())
    if match is None:
        raise InputError(f"--inpaint: found {text!r}; give two moments such as 1.5-3")
    columns_per_second = spec.sample_rate / spec.hop_length / LATENT_FACTOR
    first = int(seconds_of(match[1], "--inpaint") * columns_per_second)
    after = -int(-seconds_of(match[2], "--inpaint") * columns_per_second // 1)
    if not 0 <= first < after <= spec.width // LATENT_FACTOR:
        raise InputError(f"--inpaint: {text} is not a stretch of a tile of {spec.tile_seconds:.2f} s")
    return first * LATENT_FACTOR, after * LATENT_FACTOR

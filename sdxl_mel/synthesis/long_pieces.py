"""Long pieces: latents drawn by one of three ways, and decoded into one picture window by window."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.long_form import JointPredictor, PromptTrack, columns_of, extend
from sdxl_mel.diffusion.sampling import Denoiser, Known, Predict
from sdxl_mel.models.vae import decode_windows
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.blend import close_loop, paste
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.synthesis.layout import Layout

WINDOW_OVERLAP = 4
"""A VAE window shares a quarter of its width with the next: enough that the border of neither is seen."""


class Noise(Protocol):
    """Draws noise for seeds."""

    def __call__(self, seeds: list[int], columns: int) -> Tensor:
        """Return (seeds, 4, height, columns)."""


class Sample(Protocol):
    """Walks from noise to latents with one sampler."""

    def __call__(self, noise: Tensor, predict: Predict, seeds: list[int], known: Known | None = None) -> Tensor:
        """Return clean latents."""


@dataclass(frozen=True)
class Piece:
    """One long piece to draw: where its views lie, their texts, and its seed."""

    layout: Layout
    denoiser: Denoiser
    track: PromptTrack
    seed: int
    noise: Noise
    sample: Sample

    def columns(self, view: int) -> Tensor:
        """Return the columns of a view."""
        return columns_of(self.layout.starts[view], self.layout.width, self.layout.columns)

    def joint(self, views_at_once: int) -> Tensor:
        """Return the canvas of all views denoised together."""
        predictor = JointPredictor(
            self.denoiser,
            self.track,
            self.layout.width,
            self.layout.starts,
            merge=self.layout.merge,
            views_at_once=views_at_once,
            seed=self.seed,
        )
        return self.sample(self.noise([self.seed], self.layout.columns), predictor, [self.seed])

    def extended(self) -> Tensor:
        """Return the canvas of views that each continue what is drawn."""
        return extend(self.view, self.layout.columns, list(self.layout.starts), self.layout.width)

    def view(self, view: int, columns: Tensor, known: Known | None = None) -> Tensor:
        """Return the latents (1, 4, height, columns) of one view from its own noise."""
        seeds = [derive_seed(self.seed, "view", view)]
        text = self.track.over(columns)
        noise = self.noise(seeds, len(columns))
        return self.sample(noise, lambda x, t, _: self.denoiser.predict(x, t, text), seeds, known)


def decode_canvas(vae: Any, canvas: Tensor, layout: Layout, spec: MelSpec) -> Levels:
    """Return the picture of a canvas, window by window; a loop is decoded past its end and closed."""
    overlap = layout.width // WINDOW_OVERLAP
    if layout.loop:
        canvas = torch.cat([canvas, canvas[..., :overlap]], dim=-1)
    return _assembled(decode_windows(vae, canvas, spec, overlap), canvas.shape[-1] * LATENT_FACTOR, layout, spec)


def join_tiles(tiles: Iterable[Levels], layout: Layout, spec: MelSpec) -> Levels:
    """Return tiles that know nothing of each other as one picture."""
    starts = [start * LATENT_FACTOR for start in layout.starts]
    overlaps = [0, *(frames for _, frames in layout.seams)]
    return _assembled(zip(starts, overlaps, tiles), starts[-1] + layout.width * LATENT_FACTOR, layout, spec)


def _assembled(windows: Iterable[tuple[int, int, Levels]], total: int, layout: Layout, spec: MelSpec) -> Levels:
    """Blend pictures that follow each other into one of `total` frames, then close it or crop it to its length."""
    picture: Levels = np.empty((spec.n_mels, total, 1 if spec.channels == "grey" else 3), np.uint8)
    for start, overlap, levels in windows:
        paste(picture, levels, start, overlap, spec)
    return close_loop(picture, total - layout.frames, spec) if layout.loop else picture[:, : layout.frames]

"""The picture of a whole recording, of which passages are drawn anew, each in a window of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.long_form import place_views
from sdxl_mel.diffusion.sampling import Known
from sdxl_mel.models.vae import encode_levels
from sdxl_mel.sound.blend import blend
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.synthesis.drawing import WINDOW_OVERLAP, Models, decode_blocks
from sdxl_mel.synthesis.layout import LOOP_COLUMNS, Layout
from sdxl_mel.synthesis.regions import Patch

CHUNK_FRAMES = 1024
"""Frames put together at a time."""


@dataclass(frozen=True)
class Canvas:
    """Levels (n_mels, frames, 1 or 3), whole latent columns, changed in place; with `loop` time is a circle."""

    levels: Levels
    spec: MelSpec
    loop: bool = False

    @property
    def columns(self) -> int:
        """Return how many latent columns it has."""
        return self.levels.shape[1] // LATENT_FACTOR

    def window(self, patch: Patch) -> Layout:
        """Return the window in which a passage is drawn: a tile, or what leaves a quarter of a tile at both sides."""
        width = self.spec.width // LATENT_FACTOR
        wanted = max(width, patch.after - patch.first + 2 * (width // 4 + patch.feather))
        whole = wanted >= self.columns
        columns = self.columns if whole else wanted
        starts = tuple(place_views(columns, width, width // 2, loop=self.loop and whole)) if columns > width else (0,)
        loop = self.loop and whole
        return Layout(columns * LATENT_FACTOR, columns, min(width, columns), starts, loop, "joint", "swap")

    def window_start(self, patch: Patch, columns: int) -> int:
        """Return the first column of a passage's window of so many columns; on a circle it may lie before the start."""
        start = (patch.first + patch.after - columns) // 2
        return start if self.loop else min(max(start, 0), self.columns - columns)

    def read(self, start: int, frames: int) -> Levels:
        """Return the levels from a frame on; a circle goes on at its other end, beyond other ends there is silence.

        What lies inside is a view of the levels.
        """
        if self.loop:
            return self.levels[:, np.arange(start, start + frames) % self.levels.shape[1]]
        inside = self.levels[:, max(start, 0) : max(start + frames, 0)]
        if inside.shape[1] == frames:
            return inside
        before = min(max(-start, 0), frames)
        return np.pad(inside, ((0, 0), (before, frames - before - inside.shape[1]), (0, 0)))

    def encode(self, vae: Any, start: int, columns: int) -> Tensor:
        """Return the scaled latents (1, 4, height, columns) from a column on, encoded tile by tile."""
        width = self.spec.width // LATENT_FACTOR
        overlap = width // WINDOW_OVERLAP
        beside = overlap if self.loop and columns == self.columns else 0
        total = columns + 2 * beside
        places = place_views(total, width, overlap)
        latents = torch.empty(1, 4, self.spec.n_mels // LATENT_FACTOR, total)
        for index, place in enumerate(places):
            frames = min(width, total) * LATENT_FACTOR
            tile = self.read((start - beside + place) * LATENT_FACTOR, frames)
            # The middle of what two tiles share is where both know their surroundings best.
            own = (places[index - 1] + width - place) // 2 if index else 0
            latents[..., place + own : place + width] = encode_levels(vae, tile, self.spec, "the sound")[..., own:]
        return latents[..., beside : beside + columns]

    def redraw(self, models: Models, patch: Patch, draw: Callable[[Layout, Known], Tensor]) -> tuple[Tensor, Known]:
        """Draw one passage anew; return the latents of its window (1, 4, height, columns), and what was known of them.

        `draw` returns the latents of a window of which some are known.
        """
        layout = self.window(patch)
        start = self.window_start(patch, layout.columns)
        with models.working("vae") as vae:
            before = self.encode(vae, start, layout.columns)
        known = Known(before, patch.strengths(start, layout.columns, self.spec))
        latents = draw(layout, known)
        with models.working("vae") as vae:
            for first, drawn in decode_blocks(vae, latents, layout, self.spec):
                # Of left, mid and right a mono picture takes the mid, which is the picture of their mean.
                own = drawn[..., 1:2] if self.levels.shape[-1] < drawn.shape[-1] else drawn
                self._put(own, start * LATENT_FACTOR + first, patch)
        return latents, known

    def _put(self, drawn: Levels, first: int, patch: Patch) -> None:
        """Lay drawn levels over those from frame `first` on, by the weights of their passage."""
        for frame in range(0, drawn.shape[1], CHUNK_FRAMES):
            new = drawn[:, frame : frame + CHUNK_FRAMES]
            weights = patch.weights(first + frame, new.shape[1])
            if not weights.any():
                continue
            place = np.arange(first + frame, first + frame + new.shape[1]) % self.levels.shape[1]
            old = self.levels[:, place]
            self.levels[:, place] = new if (weights == 1).all() else blend(old, new, weights, self.spec)


def columns_of_loop(columns: int, width: int) -> int:
    """Return the columns of a circle: a short one is drawn at once, and must be halved twice."""
    return columns if columns > width else columns // LOOP_COLUMNS * LOOP_COLUMNS

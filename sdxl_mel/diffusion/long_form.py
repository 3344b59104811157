"""Pieces longer than one tile, on one canvas of latents (1, 4, height, columns).

joint: overlapping views are denoised together, step by step. extend: tile after tile, each continuing what is drawn.
Views go through the UNet a few at a time, so memory does not grow with the length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.prompt_track import PromptTrack
from sdxl_mel.diffusion.sampling import Denoiser, Known
from sdxl_mel.diffusion.views import columns_of, moved, owners, place_views, rolled
from sdxl_mel.seeding import torch_generator

Merge = Literal["swap", "average", "roll"]


@dataclass(frozen=True)
class JointPredictor:
    """Predict a whole canvas from overlapping views of `width` columns at `starts`.

    `merge` says what happens where views overlap: "swap" lets them take turns column by column (SaFa, arXiv
    2502.05130) and moves them at random each step, because a border leaves a trace where it always lies; "average"
    takes their mean (MultiDiffusion, arXiv 2302.08113; blurs high frequencies); "roll" lays views side by side and
    moves them at random each step (SpotDiffusion, arXiv 2407.15507).
    """

    denoiser: Denoiser
    track: PromptTrack
    width: int
    starts: Sequence[int]
    merge: Merge = "swap"
    views_at_once: int = 4
    seed: int = 0

    def __call__(self, latents: Tensor, timestep: Tensor, step: int) -> Tensor:
        """Return the prediction for scaled noisy latents (1, 4, height, columns)."""
        length = latents.shape[-1]
        starts = self._starts(length, step)
        owner = owners(starts, self.width, length, step)
        total, count = torch.zeros_like(latents), torch.zeros(length, device=latents.device)
        for first in range(0, len(starts), self.views_at_once):
            views = range(first, min(first + self.views_at_once, len(starts)))
            columns = [columns_of(starts[view], self.width, length) for view in views]
            pieces = torch.cat([latents[..., place] for place in columns])
            predictions = self.denoiser.predict(pieces, timestep, _stacked([self.track.over(c) for c in columns]))
            for view, place, prediction in zip(views, columns, predictions):
                own = torch.ones(len(place), dtype=torch.bool) if self.merge == "average" else owner[place] == view
                total[0, ..., place[own]] += prediction[..., own]
                count[place[own]] += 1
        return total / count

    def _starts(self, length: int, step: int) -> list[int]:
        generator = torch_generator(self.seed, self.merge, step)
        match self.merge:
            case "swap":
                return moved(self.starts, self.width, length, generator)
            case "roll":
                return rolled(place_views(length, self.width, 0, loop=True), length, generator)
            case _:
                return list(self.starts)


def extend(
    draw: Callable[[int, Tensor, Known | None], Tensor], length: int, starts: Sequence[int], width: int
) -> Tensor:
    """Return a canvas (1, channels, height, length) drawn view by view, each one given what it shares with it.

    `draw(view, columns, known)` returns (1, channels, height, len(columns)). On a circle the last view is given its end
    as well as its start.
    """
    first = columns_of(starts[0], width, length)
    piece = draw(0, first, None)
    canvas = piece.new_zeros(*piece.shape[:-1], length)
    canvas[..., first] = piece
    drawn = torch.zeros(length, dtype=torch.bool)
    drawn[first] = True
    for view, start in enumerate(starts[1:], 1):
        columns = columns_of(start, width, length)
        free = (~drawn[columns]).to(piece).reshape(1, 1, 1, -1)
        canvas[..., columns] = draw(view, columns, Known(canvas[..., columns], free))
        drawn[columns] = True
    return canvas


def _stacked(texts: list[TextEmbeddings]) -> TextEmbeddings:
    return TextEmbeddings(*(torch.cat(parts) for parts in zip(*texts)))

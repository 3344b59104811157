"""Pieces longer than one tile, on one canvas of latents (1, 4, height, columns).

joint: overlapping views are denoised together, step by step. extend: tile after tile, each continuing what is drawn.
Views go through the UNet a few at a time, so memory does not grow with the length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings, stacked
from sdxl_mel.diffusion.samplers import Merge
from sdxl_mel.diffusion.sampling import Denoiser, Known
from sdxl_mel.errors import InputError
from sdxl_mel.seeding import torch_generator


def place_views(length: int, width: int, overlap: int, loop: bool = False) -> list[int]:
    """Return the first column of each view; neighbours share at least `overlap` columns and all columns are covered.

    Raises InputError where the overlap leaves a view nothing of its own.
    """
    if not 0 <= overlap < width:
        raise InputError(f"an overlap of {overlap} latent columns does not fit views of {width}; give 0 to 90%")
    if length <= width:
        return [0]
    stride = width - overlap
    if loop:
        count = -(-length // stride)
        return [round(index * length / count) for index in range(count)]
    count = -(-(length - width) // stride) + 1
    # Spread evenly, so that no last view overlaps far more than the others.
    return [round(index * (length - width) / (count - 1)) for index in range(count)]


def moved(starts: Sequence[int], width: int, length: int, generator: torch.Generator) -> list[int]:
    """Return the views moved together by a random number of columns, so that borders lie anywhere in the long run.

    On a circle they move anywhere. On a line the first and the last stay, for they hold its ends; those between move by
    at most half of what lies between two of them, and never so far that a column is left to none.
    """
    if len(starts) < 2:
        return list(starts)
    if starts[-1] + width > length:
        return rolled(starts, length, generator)
    steps = [after - start for start, after in pairwise(starts)]
    reach = min(min(steps) // 2, width - max(steps))
    shift = int(torch.randint(-reach, max(reach, 1), (), generator=generator))
    return [starts[0], *(start + shift for start in starts[1:-1]), starts[-1]]


def rolled(starts: Sequence[int], length: int, generator: torch.Generator) -> list[int]:
    """Return the views turned around the circle by a random number of columns."""
    shift = int(torch.randint(length, (), generator=generator))
    return [(start + shift) % length for start in starts]


def columns_of(start: int, width: int, length: int) -> Tensor:
    """Return the columns of a view, wrapped around the canvas."""
    return torch.arange(start, start + min(width, length)) % length


def owners(starts: list[int], width: int, length: int, step: int) -> Tensor:
    """Return which view gives each column at a step: where several overlap, they take turns column by column.

    This is SaFa's latent swap (arXiv 2502.05130) on one canvas: neighbouring columns of an overlap come from different
    views, and the turn moves on with each step, so both views shape all of it and nothing is averaged away.
    """
    covering = _covering(starts, width, length)
    rank = (torch.arange(length) + step) % covering.sum(dim=0)
    order = covering.cumsum(dim=0) - 1
    return (covering & (order == rank)).int().argmax(dim=0)


def _covering(starts: list[int], width: int, length: int) -> Tensor:
    """Return (views, columns): which view covers which column."""
    covering = torch.zeros(len(starts), length, dtype=torch.bool)
    for view, start in enumerate(starts):
        covering[view, columns_of(start, width, length)] = True
    return covering


@dataclass(frozen=True)
class PromptTrack:
    """The embeddings of some texts, and how much each column of the canvas belongs to each, (columns, texts)."""

    texts: TextEmbeddings
    weights: Tensor

    def over(self, columns: Tensor) -> TextEmbeddings:
        """Return the mean text of some columns: in a view that lies in two sections, of both in proportion."""
        share = self.weights[columns].mean(dim=0).to(self.texts[0])
        return TextEmbeddings(*(torch.einsum("t,t...->...", share, each)[None] for each in self.texts))


def section_weights(starts: list[int], columns: int) -> Tensor:
    """Return the weights of texts that last from their start to the next one's; the first also begins the piece."""
    edges = [0, *starts[1:], columns]
    weights = torch.zeros(columns, len(starts))
    for index, (first, after) in enumerate(pairwise(edges)):
        weights[first:after, index] = 1.0
    return weights


def travel_weights(columns: int) -> Tensor:
    """Return the weights of two texts that change evenly from the first to the second."""
    second = torch.linspace(0.0, 1.0, columns)
    return torch.stack([1 - second, second], dim=1)


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
            predictions = self.denoiser.predict(pieces, timestep, stacked([self.track.over(c) for c in columns]))
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
) -> Iterator[tuple[Tensor, int]]:
    """Yield one canvas (1, channels, height, length) after every view, and how many columns from its first are drawn.

    Each view is given what it shares with the canvas, and keeps it. `draw(view, columns, known)` returns
    (1, channels, height, len(columns)). On a circle the last view is given its end as well as its start.
    """
    first = columns_of(starts[0], width, length)
    piece = draw(0, first, None)
    canvas = piece.new_zeros(*piece.shape[:-1], length)
    canvas[..., first] = piece
    drawn = torch.zeros(length, dtype=torch.bool)
    drawn[first] = True
    yield canvas, len(first)
    for view, start in enumerate(starts[1:], 1):
        columns = columns_of(start, width, length)
        free = (~drawn[columns]).to(piece).reshape(1, 1, 1, -1)
        canvas[..., columns] = draw(view, columns, Known(canvas[..., columns], free))
        drawn[columns] = True
        yield canvas, min(start + width, length)

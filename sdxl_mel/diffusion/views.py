"""Where overlapping views lie on a long canvas of latents, and which of them speaks for each column.

Columns are latent columns: 8 frames each. On a circle (`loop`) views run over the end into the start.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdxl_mel.errors import InputError


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

"""Whether a regular grid of joins stands out from, or hides in, the music around it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.sound.seams import spectral_flux

Float = NDArray[np.float32]


def share_of_calmer_grids(
    pieces: Sequence[Float], stride: int, joins: int, gap: int, overlap: int, context: int
) -> float:
    """Return the share of equal grids, moved by up to half a stride, at which the music changes less than at the joins.

    Joins lie at every multiple of `stride` and are `overlap` frames long; the change is measured across `gap` frames in
    their middle. Grids are compared because neighbouring places share frames: those of a grid are as independent as the
    joins are. About 1/2 where the joins' place means nothing, 1 where they stand out, 0 where they are too smooth.
    """
    first = stride + (overlap - gap) // 2 - context
    shifts = range(-stride // 2, stride // 2)
    means = np.zeros(len(shifts))
    for values in pieces:
        flux = spectral_flux(values, gap, context)
        flux = (flux - flux.mean()) / flux.std()
        means += [flux[first + shift :: stride][: joins - 1].mean() for shift in shifts]
    here = means[stride // 2]
    return float((means < here).mean())

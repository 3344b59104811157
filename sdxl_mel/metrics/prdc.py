"""Precision, recall, density and coverage on k-nearest-neighbour balls (Kynkäänniemi 2019, Naeem 2020), in float64."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Vectors = NDArray[np.float64]

NEAREST = 5
FEWEST = 50
"""Below this many clips a side, balls around fifth neighbours say nothing."""


@dataclass(frozen=True)
class Prdc:
    """Share of generated clips inside the reference's balls, of reference clips inside the generated ones' balls,
    how many balls a generated clip lies in over k (may exceed 1), and the share of balls that hold a generated clip."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(reference: Vectors, generated: Vectors, nearest: int = NEAREST) -> Prdc:
    """Return the four numbers for rows (m, d) and (n, d), more than `nearest` of each."""
    reference_radii = _radii(reference, nearest)
    generated_radii = _radii(generated, nearest)
    distances = cdist(reference, generated)
    inside = distances < reference_radii[:, None]
    return Prdc(
        precision=float(inside.any(axis=0).mean()),
        recall=float((distances < generated_radii).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / nearest),
        coverage=float((distances.min(axis=1) < reference_radii).mean()),
    )


def _radii(rows: Vectors, nearest: int) -> Vectors:
    """Return the distance from each row to its `nearest`-th other row."""
    return np.partition(cdist(rows, rows), nearest, axis=1)[:, nearest]

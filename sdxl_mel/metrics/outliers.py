"""Where clips lie among others: balls of nearest neighbours, and clips far from all of the reference."""

import numpy as np
import scipy.linalg
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]

from sdxl_mel.arrays import Vectors

NEAREST = 5
FEWEST = 50
"""Below this many clips a side, balls around fifth neighbours say nothing."""


def prdc(reference: Vectors, generated: Vectors, nearest: int = NEAREST) -> dict[str, float]:
    """Return precision, recall, density and coverage for rows (m, d) and (n, d), more than `nearest` of each.

    The share of generated clips inside the reference's balls, of reference clips inside the generated ones' balls,
    how many balls a generated clip lies in over k (may exceed 1), and the share of balls that hold a generated clip.
    """
    reference_radii = _radii(reference, nearest)
    generated_radii = _radii(generated, nearest)
    distances = cdist(reference, generated)
    inside = distances < reference_radii[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((distances < generated_radii).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / nearest),
        "coverage": float((distances.min(axis=1) < reference_radii).mean()),
    }


def _radii(rows: Vectors, nearest: int) -> Vectors:
    """Return the distance from each row to its `nearest`-th other row."""
    return np.partition(cdist(rows, rows), nearest, axis=1)[:, nearest]


QUANTILE = 0.95


def mahalanobis(clips: Vectors, reference: Vectors) -> Vectors:
    """Return the squared distance of each clip to the reference mean, by its Ledoit-Wolf shrunk covariance."""
    covariance, _ = ledoit_wolf(reference)
    factor = scipy.linalg.cholesky(covariance, lower=True)
    steps = scipy.linalg.solve_triangular(factor, (clips - reference.mean(0)).T, lower=True)
    return np.asarray(np.square(steps).sum(0))


def neighbour_distances(clips: Vectors, reference: Vectors, nearest: int = NEAREST) -> Vectors:
    """Return the mean distance of each clip to its `nearest` reference clips (all of them if there are fewer)."""
    nearest = min(nearest, len(reference))
    return np.asarray(np.partition(cdist(clips, reference), nearest - 1, axis=1)[:, :nearest].mean(1))


def own_neighbour_distances(reference: Vectors, nearest: int = NEAREST) -> Vectors:
    """Return the same for the reference clips among the others."""
    nearest = min(nearest, len(reference) - 1)
    distances = cdist(reference, reference)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.partition(distances, nearest - 1, axis=1)[:, :nearest].mean(1))

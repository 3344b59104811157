"""Which clips do not sound like the reference: distances of single clips."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]

Vectors = NDArray[np.float64]

NEAREST = 5
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

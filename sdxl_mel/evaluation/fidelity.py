"""Does the generated set sound like the reference set: FAD, KAD, similarity, and the clips that do not belong."""

from dataclasses import replace

import numpy as np

from sdxl_mel.evaluation.embeddings import Embeddings, Metrics
from sdxl_mel.files.evaluation import Absent
from sdxl_mel.metrics.embedders.base import unit_rows
from sdxl_mel.metrics.frechet import (
    curve_over_size,
    frechet_change,
    frechet_distance,
    frechet_interval,
    gaussian,
    noise_floor,
)
from sdxl_mel.metrics.grades import fad_grade
from sdxl_mel.metrics.intervals import Interval, mean_interval, share_interval
from sdxl_mel.metrics.kernel import kernel_distance, kernel_sums, median_distance, permutation_p, weighted_bootstrap
from sdxl_mel.metrics.outliers import QUANTILE, mahalanobis, neighbour_distances, own_neighbour_distances

BOOTSTRAP_DRAWS = 1000
PERMUTATIONS = 999
LEAST_CLIPS = 2
LEAST_FOR_OUTLIERS = 5


def fidelity(embeddings: Embeddings, with_curve: bool) -> tuple[Metrics, list[Absent], dict[str, list[float]]]:
    """Return the metrics, those that are absent, and values for each clip."""
    counts = len(embeddings.generated), len(embeddings.reference)
    if min(counts) < LEAST_CLIPS:
        why = f"needs 2 usable clips a side; {counts[0]} generated, {counts[1]} reference"
        return {}, [Absent(metric=name, why=why) for name in ("fad", "kad")], {}
    metrics = _fad(embeddings, with_curve) | _fad_change(embeddings) | _similarity(embeddings)
    per_clip = {"reference_similarity": _mean_cosines(embeddings).tolist()}
    absent = []
    width = median_distance(embeddings.reference.rows, embeddings.seed)
    if width > 0:
        metrics |= _kad(embeddings, width)
    else:
        absent.append(Absent(metric="kad", why="most reference windows are the same: there is no bandwidth"))
    if len(embeddings.reference) < LEAST_FOR_OUTLIERS or width <= 0:
        absent.append(Absent(metric="outliers", why=f"needs {LEAST_FOR_OUTLIERS} different reference clips"))
    else:
        found, values = _outliers(embeddings)
        metrics |= found
        per_clip |= values
    return metrics, absent, per_clip


def _fad(embeddings: Embeddings, with_curve: bool) -> Metrics:
    generated, reference = embeddings.generated, embeddings.reference
    distance = frechet_distance(gaussian(generated.rows), gaussian(reference.rows))
    interval = frechet_interval(generated.rows, generated.owner, reference.rows, reference.owner, embeddings.seed)
    floor = noise_floor(reference.rows, reference.owner, len(generated), embeddings.seed)
    details: dict[str, object] = {
        "mean_part": distance.mean_part,
        "covariance_part": distance.covariance_part,
        "reference_clips": len(reference),
        "windows": len(generated.rows),
        "reference_windows": len(reference.rows),
        "dimensions": generated.rows.shape[1],
        "floor": floor,
        "over_floor": distance.value / floor.value if floor and floor.value > 0 else None,
    }
    if with_curve and len(generated) >= 2 * LEAST_CLIPS:
        details["curve"] = curve_over_size(generated.rows, generated.owner, reference.rows, embeddings.seed)
    bounds = interval.value, interval.low, interval.high
    grade = fad_grade(embeddings.family, *bounds, clips=len(generated), floor=floor.value if floor else None)
    meaning = (
        "Fréchet distance between Gaussians fitted to the windows of both sets; lower is closer. It reads well above 0 "
        "for equal distributions at small N: compare it with `floor`, never with another N or another embedder."
    )
    # Two sets may be 0 apart, where no scale opens downwards: the interval is cut there.
    low = None if interval.low is None else max(0.0, interval.low)
    interval = replace(interval, low=low, method=f"nuclear norm, float64; {interval.method}")
    return {"fad": embeddings.metric(interval, meaning, better="lower", details=details, grade=grade)}


def _fad_change(embeddings: Embeddings) -> Metrics:
    before, after, reference = embeddings.before, embeddings.after, embeddings.reference
    if before is None or after is None or len(after) < LEAST_CLIPS:
        return {}
    interval = frechet_change(
        (before.rows, before.owner), (after.rows, after.owner), (reference.rows, reference.owner), embeddings.seed
    )
    meaning = (
        "How much nearer to the reference these clips are than those of --against: the difference of both FADs, for "
        "clips of the same prompts and seeds; below 0 is nearer. Two intervals that overlap may hide such a difference."
    )
    details = {"pairs": len(after)}
    return {"fad_change": embeddings.metric(interval, meaning, better="lower", details=details)}


def _kad(embeddings: Embeddings, width: float) -> Metrics:
    generated, reference = embeddings.generated, embeddings.reference
    kernel = kernel_sums(generated.rows, generated.owner, reference.rows, reference.owner, width)
    value = float(kernel_distance(kernel)[0])
    drawn = weighted_bootstrap(kernel, BOOTSTRAP_DRAWS, embeddings.seed)
    drawn = drawn[np.isfinite(drawn)]
    few = min(len(generated), len(reference)) < LEAST_CLIPS + 1
    low, high = (None, None) if few else map(float, np.quantile(drawn, [0.025, 0.975]))
    method = "unbiased MMD^2 x 100, Gaussian kernel, reference-median bandwidth; weighted bootstrap over clips"
    interval = Interval(value, None if few else float(drawn.std()), low, high, method)
    meaning = (
        "Kernel audio distance; 0 for equal distributions at any N (it may be negative), lower is closer. `p` is how "
        "often two random halves of all clips would be as far apart."
    )
    details = {"bandwidth": width, "p": permutation_p(kernel, PERMUTATIONS, embeddings.seed)}
    return {"kad": embeddings.metric(interval, meaning, better="lower", details=details)}


def _similarity(embeddings: Embeddings) -> Metrics:
    cosines = _mean_cosines(embeddings)
    interval = mean_interval(cosines, embeddings.groups).within(-1.0, 1.0)
    centre = unit_rows(embeddings.reference.clips.mean(0)[None])[0]
    own = unit_rows(embeddings.generated.clips.mean(0)[None])[0]
    details = {
        "std": float(cosines.std(ddof=1)),
        "centroid_cosine": float(own @ centre),
        "to_centroid": float((embeddings.generated.clips @ centre).mean()),
        "reference_to_itself": _own_similarity(embeddings),
    }
    meaning = (
        "Mean cosine over all pairs of a generated and a reference clip (the product of the two mean vectors). Two "
        "other definitions are in use and stand in `details`: cosine of the two centroids, and mean cosine of the "
        "clips to the reference centroid."
    )
    return {"reference_similarity": embeddings.metric(interval, meaning, better="higher", details=details)}


def _outliers(embeddings: Embeddings) -> tuple[Metrics, dict[str, list[float]]]:
    generated, reference = embeddings.generated.clips, embeddings.reference.clips
    limit = float(np.quantile(own_neighbour_distances(reference), QUANTILE))
    distances = neighbour_distances(generated, reference)
    outside = distances > limit
    worst = np.argsort(-distances, kind="stable")[:5]
    meaning = (
        "Share of clips farther from their 5 nearest reference clips than 95 % of reference clips are from theirs."
    )
    details = {"limit": limit, "farthest": [embeddings.names[index] for index in worst if outside[index]]}
    metric = embeddings.metric(share_interval(outside, embeddings.groups), meaning, better="lower", details=details)
    per_clip = {"neighbour_distance": distances.tolist(), "mahalanobis": mahalanobis(generated, reference).tolist()}
    return {"outliers": metric}, per_clip


def _mean_cosines(embeddings: Embeddings) -> np.ndarray:
    return np.asarray(embeddings.generated.clips @ embeddings.reference.clips.mean(0))


def _own_similarity(embeddings: Embeddings) -> float:
    clips = embeddings.reference.clips
    n = len(clips)
    return float((np.square(clips.sum(0)).sum() - n) / (n * (n - 1)))

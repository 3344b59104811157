"""The drawings of the report."""

import numpy as np
from matplotlib.figure import Figure

from sdxl_mel.arrays import Vectors
from sdxl_mel.evaluation.embeddings import Embeddings
from sdxl_mel.files.evaluation import Metric
from sdxl_mel.seeding import numpy_generator

BLUE, ORANGE, GREY = "#2f6fdb", "#d9730d", "#8a8f98"
MOST_CELLS = 80
"""Rows of a matrix that is drawn; more are a blur."""
MOST_POINTS = 1500


def histogram(values: list[float], metric: Metric, label: str) -> Figure:
    """Return how the scores of clips are spread, with the mean and its interval."""
    figure = Figure(figsize=(5.2, 2.6))
    axes = figure.add_subplot()
    axes.hist(values, bins=min(30, max(5, len(values) // 3)), color=BLUE, alpha=0.75)
    if metric.low is not None and metric.high is not None:
        axes.axvspan(metric.low, metric.high, color=ORANGE, alpha=0.3, lw=0)
    axes.axvline(metric.value, color=ORANGE, lw=2)
    axes.set(xlabel=label, ylabel="clips")
    return figure


def matrix(values: Vectors, xlabel: str, ylabel: str) -> Figure:
    """Return a matrix as colours, its first rows and columns where it is large."""
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.add_subplot()
    image = axes.imshow(values[:MOST_CELLS, :MOST_CELLS], aspect="auto", cmap="viridis", interpolation="nearest")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image)
    return figure


def similarity_map(embeddings: Embeddings) -> Figure:
    """Return all clips on the two main axes (PCA) of reference and generated clips together."""
    generated, reference = embeddings.generated.clips, embeddings.reference.clips
    training = embeddings.training.clips if embeddings.training else None
    both = np.concatenate([generated, reference])
    centre = both.mean(0)
    axes_of = np.linalg.svd(both - centre, full_matrices=False)[2][:2]
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.add_subplot()
    sets = [
        ("training", training, GREY, "."),
        ("reference", reference, BLUE, "o"),
        ("generated", generated, ORANGE, "x"),
    ]
    for name, rows, colour, marker in sets:
        if rows is not None and len(rows):
            points = (_some(rows, embeddings.seed) - centre) @ axes_of.T
            if points.shape[1] == 1:
                points = np.pad(points, ((0, 0), (0, 1)))
            axes.scatter(points[:, 0], points[:, 1], s=18, c=colour, marker=marker, alpha=0.7, label=name)
    axes.set(xlabel="first axis", ylabel="second axis")
    axes.legend(frameon=False)
    return figure


def curve(metric: Metric) -> Figure | None:
    """Return FAD over the number of clips, its line to infinity, and the floor; None without a curve."""
    found, floor = metric.details.curve, metric.details.floor
    if found is None:
        return None
    sizes, values = np.array(found.sizes, dtype=float), np.array(found.values)
    figure = Figure(figsize=(5.2, 2.8))
    axes = figure.add_subplot()
    axes.plot(1 / sizes, values, "o-", color=BLUE, label="generated to reference")
    if found.limit is not None:
        axes.plot([0, 1 / sizes[-1]], [found.limit, values[-1]], ":", color=BLUE, label="line to 1/N = 0")
    if floor is not None:
        axes.axhline(floor.value, color=ORANGE, ls="--", label=f"reference to itself, {floor.clips} clips")
    axes.set(xlabel="1 / number of clips", ylabel="FAD", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure


def bars(values: dict[str, float], label: str, marked: set[str], line: float | None) -> Figure:
    """Return one bar a prompt, the `marked` ones in orange, and a line to compare with."""
    names = sorted(values, key=lambda name: values[name])[:40]
    figure = Figure(figsize=(6.5, 0.6 + 0.24 * len(names)))
    axes = figure.add_subplot()
    axes.barh(
        [_short(name) for name in names],
        [values[name] for name in names],
        color=[ORANGE if name in marked else BLUE for name in names],
    )
    if line is not None:
        axes.axvline(line, color=GREY, ls="--")
    axes.set(xlabel=label)
    return figure


def _some(rows: Vectors, seed: int) -> Vectors:
    if len(rows) <= MOST_POINTS:
        return rows
    return rows[np.sort(numpy_generator(seed, "map").permutation(len(rows))[:MOST_POINTS])]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

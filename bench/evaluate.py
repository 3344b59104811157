"""Distances and embeddings beside their peers: scipy, torchmetrics, prdc, vendi-score and KADTK's formula."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from scipy.spatial.distance import cdist, pdist

from bench.table import Table
from sdxl_mel.metrics.diversity import vendi_score
from sdxl_mel.metrics.frechet import distance_between
from sdxl_mel.metrics.kernel import kernel_distance, kernel_sums, median_distance
from sdxl_mel.metrics.outliers import prdc

CASES = {"10 x 512 / 200": (10, 200, 512), "200 x 512 / 200": (200, 200, 512), "1000 x 200 / 1000": (1000, 1000, 200)}
CLIPS = 1000
SECONDS = 10.0


def run() -> Table:
    """Time ours and the peers on the same vectors, and say how far apart the values are."""
    rows = []
    for name, (n, m, width) in CASES.items():
        generated, reference = _units(n, width, 1, 0.5), _units(m, width, 2)
        rows += _distances(name, generated, reference)
    rows += _models()
    rows += _whole_stage()
    notes = [
        "Vectors are simulated unit rows with eigenvalues falling as i^-1.2. Times are of one call, best of three.",
        "`difference` is the peer's value minus ours, in float64 for all.",
        "musicnn-*: real time factor of embedding on one thread; the stage: cached embeddings, wall clock, no report.",
    ]
    return Table("evaluate", ["what", "case", "ours", "peer", "faster", "difference"], rows, notes)


def _distances(case: str, generated: np.ndarray, reference: np.ndarray) -> list[list[str]]:
    width = median_distance(reference)
    owner, other = np.arange(len(generated)), np.arange(len(reference))
    pairs: list[tuple[str, Callable[[], float], Callable[[], float]]] = [
        ("FAD, scipy sqrtm", lambda: distance_between(generated, reference), lambda: _sqrtm(generated, reference)),
        (
            "FAD, torchmetrics",
            lambda: distance_between(generated, reference),
            lambda: _torchmetrics(generated, reference),
        ),
        (
            "KAD, KADTK's formula",
            lambda: float(kernel_distance(kernel_sums(generated, owner, reference, other, width))[0]),
            lambda: _kadtk(generated, reference),
        ),
        ("Vendi, vendi-score", lambda: vendi_score(reference), lambda: _vendi(reference)),
    ]
    if min(len(generated), len(reference)) > 5:
        pairs.append(
            ("coverage, prdc", lambda: prdc(reference, generated)["coverage"], lambda: _prdc(reference, generated))
        )
    return [_row(what, case, ours, peer) for what, ours, peer in pairs]


def _row(what: str, case: str, ours: Callable[[], float], peer: Callable[[], float]) -> list[str]:
    try:
        theirs, their_time = _timed(peer)
    except (ImportError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        return [what, case, f"{_timed(ours)[1] * 1e3:.1f} ms", f"{type(error).__name__}", "-", "-"]
    value, our_time = _timed(ours)
    return [
        what,
        case,
        f"{our_time * 1e3:.1f} ms",
        f"{their_time * 1e3:.1f} ms",
        f"{their_time / our_time:.1f}x",
        f"{theirs - value:.1e}",
    ]


def _timed(call: Callable[[], float]) -> tuple[float, float]:
    times = []
    value = 0.0
    for _ in range(3):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return value, min(times)


def _units(count: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)) * np.arange(1, width + 1) ** -0.6
    rows[:, 0] += 2.0
    rows[:, 1] += shift
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(first + second - 2 * root))


def _torchmetrics(x: np.ndarray, y: np.ndarray) -> float:
    from torchmetrics.image.fid import _compute_fid

    parts = [torch.from_numpy(part) for rows in (x, y) for part in (rows.mean(0), np.cov(rows, rowvar=False))]
    return float(_compute_fid(*parts))


def _kadtk(x: np.ndarray, y: np.ndarray) -> float:
    """KADTK's kad.py, with the bandwidth that its README documents."""
    gamma = 1 / (2 * np.median(pdist(y)) ** 2)
    xx, yy, xy = (np.exp(-gamma * cdist(a, b, "sqeuclidean")) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    return float(100 * ((xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean()))


def _vendi(rows: np.ndarray) -> float:
    from vendi_score import vendi

    return float(vendi.score_dual(rows))


def _prdc(reference: np.ndarray, generated: np.ndarray) -> float:
    import contextlib
    import io

    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return float(compute_prdc(reference, generated, nearest_k=5)["coverage"])


def _models() -> list[list[str]]:
    from sdxl_mel.metrics.embedders.registry import Sources, open_embedders

    sound = (0.1 * np.random.default_rng(0).standard_normal(16000 * 60)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for embedder in open_embedders(("musicnn-msd", "musicnn-mtt", "mel"), Sources())[0]:
        embedder.embed_audio(sound[: 16000 * 6])
        start = time.process_time()
        embedder.embed_audio(sound)
        rate = 60 / (time.process_time() - start)
        rows.append([f"embedding {embedder.name}", "60 s", f"{rate:.0f}x real time", "-", "-", "-"])
    torch.set_num_threads(threads)
    return rows


def _whole_stage() -> list[list[str]]:
    """Score 1,000 clips of 10 s against 1,000 whose embeddings are known, and again without reading any sound."""
    import soundfile

    from sdxl_mel.stages.evaluate import Config, run

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("generated", "reference"):
            (root / folder).mkdir()
            for index in range(CLIPS):
                times = np.arange(int(16000 * SECONDS)) / 16000
                tone = 0.2 * np.sin(2 * np.pi * generator.uniform(100, 2000) * times)
                samples = tone + generator.uniform(0.01, 0.2) * generator.standard_normal(len(times))
                soundfile.write(root / folder / f"{index:04}.wav", samples.astype(np.float32), 16000)
        config = Config(
            generated=root / "generated",
            reference=root / "reference",
            out=root / "out",
            embedder=("mel",),
            report=False,
        )
        run(config)
        start, used = time.perf_counter(), time.process_time()
        run(config)
        took, processor = time.perf_counter() - start, time.process_time() - used
    case = f"{CLIPS} clips of {SECONDS:g} s against {CLIPS}"
    return [["stage, embeddings cached", case, f"{took:.1f} s ({processor:.1f} s of processor)", "-", "-", "-"]]

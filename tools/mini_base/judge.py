"""Judging a mini base by its shipped weights: the VAE's round trip, prompt adherence, diversity, novelty, time."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from sdxl_mel.corpus.instruments import INSTRUMENTS
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.metrics.intervals import proportion_interval
from sdxl_mel.metrics.oracle import Oracle, statistics
from sdxl_mel.progress import track
from sdxl_mel.seeding import numpy_generator, torch_generator
from tools.mini_base.captions import ANCHOR
from tools.mini_base.data import SPEC, Pictures, Renders, renders
from tools.mini_base.oracle import chorales, fit_oracle
from tools.mini_base.vae import decoded, encoded, round_trip_error, to_levels

STEPS = 25
BATCH = 20
THREADS = os.cpu_count() or 1
EVERY = 3
"""One training tile in so many goes through the VAE: for the oracle, and to measure novelty against."""

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class JudgeData:
    """Renders for judging: what the oracle learns, and pieces that nothing learned."""

    learned: list[Renders]
    seen: Renders
    unseen: Renders


def judge_data(folder: Path, tracks: int, workers: int) -> JudgeData:
    """Return the renders; the oracle learns all instruments and all pairs, on training pieces alone."""
    return JudgeData(
        learned=[
            renders(folder, "train", tracks, workers=workers),
            renders(folder, "test-unseen", 800, workers=workers, pieces="train"),
            renders(folder, "train", 1000, group="left-out", workers=workers),
        ],
        seen=duets(renders(folder, "test-seen", 400, workers=workers)),
        unseen=duets(renders(folder, "test-unseen", 400, workers=workers)),
    )


def duets(source: Renders) -> Renders:
    """Return the tracks of two instruments."""
    kept = [index for index, row in enumerate(source.about) if len(instruments_of(row)) == 2]
    return Renders(source.pictures[kept], [source.about[index] for index in kept])


def instruments_of(row: dict[str, object]) -> list[str]:
    """Return the instruments of a description."""
    return list(row["instruments"])  # type: ignore[call-overload]


def captions_of(row: dict[str, object]) -> list[str]:
    """Return the captions of a description, tags first."""
    return list(row["captions"])  # type: ignore[call-overload]


def fit_on_round_trips(data: JudgeData, vae: torch.nn.Module, folder: Path) -> Oracle:
    """Return the oracle fitted to real tiles and to some of the same tiles after the VAE; never to generated ones."""
    about = [row for source in data.learned for row in source.about]
    tiles = np.concatenate([source.tiles() for source in data.learned])
    after = round_trips(data, vae, folder)
    rows = about + about[::EVERY]
    return fit_oracle(
        np.concatenate([tiles, after]),
        [instruments_of(row) for row in rows],
        [row["style"] == "chorale" for row in rows],
        list(INSTRUMENTS),
    )


def round_trips(data: JudgeData, vae: torch.nn.Module, folder: Path) -> Pictures:
    """Return every third training tile after the VAE, from `folder` where it was made before."""
    kept = folder / "round-trips.npy"
    if not kept.exists():
        tiles = np.concatenate([source.tiles() for source in data.learned])[::EVERY]
        made = through(vae, tiles)
        with atomic_path(kept) as temporary, temporary.open("wb") as file:
            np.save(file, made)
    return np.load(kept)


def through(vae: torch.nn.Module, tiles: Pictures) -> Pictures:
    """Return tiles after the VAE and 8 bits."""
    parts = np.array_split(tiles, max(1, len(tiles) // BATCH))
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        work = pool.map(lambda part: decoded(vae, encoded(vae, part)), parts)
        return np.concatenate(list(track(work, len(parts), "through the VAE")))


def generate(pipeline: StableDiffusionXLPipeline, prompts: list[str], guidance: float) -> Pictures:
    """Return a tile for each prompt, (n, 128, 256); the noise of a tile depends on its place alone."""
    starts = range(0, len(prompts), BATCH)
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        work = pool.map(lambda start: tiles_for(pipeline, prompts[start : start + BATCH], guidance, start), starts)
        return np.concatenate(list(track(work, len(starts), "generating", "batches")))


def tiles_for(pipeline: StableDiffusionXLPipeline, prompts: list[str], guidance: float, first: int = 0) -> Pictures:
    """Return the tiles of one batch.

    A scheduler holds the state of one run and a tokenizer the padding of one call, so each batch, which is drawn
    beside others, takes its own.
    """
    own_state = {"scheduler": type(pipeline.scheduler).from_config(pipeline.scheduler.config)}
    own_state |= {name: deepcopy(getattr(pipeline, name)) for name in ("tokenizer", "tokenizer_2")}
    own = StableDiffusionXLPipeline(
        **{**pipeline.components, **own_state}, force_zeros_for_empty_prompt=False, add_watermarker=False
    )
    own.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        images = own(
            prompts,
            height=SPEC.n_mels,
            width=SPEC.width,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=[torch_generator(0, "judge", first + index) for index in range(len(prompts))],
            output_type="pt",
        ).images
    return to_levels(images.float() * 2 - 1)


def judge(folder: Path, data: JudgeData, work: Path, oracle: Oracle, *, prompts: int, guidance: float) -> Lines:
    """Return (what, figure) for the pipeline at `folder`."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    lines = [("size of the folder", f"{megabytes:.1f} MB")]
    made, real, after = [], [], []
    for name, source in (("seen pairs", data.seen), ("held-out pairs", data.unseen)):
        rows = source.about[:prompts]
        made.append(generate(pipeline, [f"{ANCHOR}, {captions_of(row)[0]}" for row in rows], guidance))
        real.append(source.tiles()[:prompts])
        after.append(through(pipeline.vae, real[-1]))
        sets = {"generated": made[-1], "real": real[-1], "real + VAE": after[-1]}
        lines += adherence(oracle, name, rows, sets)
    everything, held_out = np.concatenate(real), np.concatenate(after)
    psnr, error = round_trip_error(everything, held_out)
    lines.append(
        ("VAE round trip, held-out pieces", f"PSNR {psnr:.2f} dB, mel error {error:.2f} dB, N {len(held_out)}")
    )
    lines += variety(oracle, np.concatenate(made), held_out, round_trips(data, pipeline.vae, work))
    seconds = _seconds_a_tile(pipeline, guidance)
    return [*lines, (f"one tile of {STEPS} steps", f"{seconds:.2f} s on {torch.get_num_threads()} threads")]


def adherence(oracle: Oracle, name: str, rows: list[dict[str, object]], sets: dict[str, Pictures]) -> Lines:
    """Return the share of tiles with both instruments found, the same for shuffled captions, and of right styles.

    A caption that by chance asks for the same pair is no shuffled one: of the 15 held-out pairs that is one in 15.
    """
    wanted = [instruments_of(row) for row in rows]
    shuffled = [wanted[index] for index in numpy_generator(0, "shuffled captions").permutation(len(wanted))]
    elsewhere = [set(mine) != set(other) for mine, other in zip(wanted, shuffled)]
    are_chorales = np.array([row["style"] == "chorale" for row in rows])
    lines = []
    for what, tiles in sets.items():
        both = sum(map(all, oracle.found(tiles, wanted)))
        floor = np.mean([all(flags) for flags, other in zip(oracle.found(tiles, shuffled), elsewhere) if other])
        interval = proportion_interval(both, len(rows))
        style = np.mean(chorales(oracle, tiles) == are_chorales)
        figure = f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f}), N {len(rows)}"
        lines.append(
            (f"{name}, {what}: both instruments", f"{figure}; shuffled captions {floor:.3f}; style {style:.3f}")
        )
    pairs = len(oracle.labels) * (len(oracle.labels) - 1) // 2
    return [*lines, (f"{name}: chance", f"{1 / pairs:.4f}")]


def variety(oracle: Oracle, made: Pictures, real: Pictures, training: Pictures) -> Lines:
    """Return how far generated tiles are from each other and from training tiles, beside real ones after the VAE."""
    generated, held_out, known = (oracle.normal(statistics(tiles)) for tiles in (made, real, training))
    spread = [_mean_distance(one) for one in (generated, held_out)]
    nearest = [np.median(_distances(one, known).min(1)) for one in (generated, held_out)]
    return [
        ("diversity, generated / real + VAE", f"{spread[0] / spread[1]:.3f} ({spread[0]:.2f} / {spread[1]:.2f})"),
        ("median distance to the nearest training tile", f"generated {nearest[0]:.2f}, held-out real {nearest[1]:.2f}"),
    ]


def _mean_distance(rows: np.ndarray) -> float:
    return float(_distances(rows, rows)[np.triu_indices(len(rows), 1)].mean())


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))


def _seconds_a_tile(pipeline: StableDiffusionXLPipeline, guidance: float) -> float:
    """Return the time of a warm tile on all threads of torch."""
    prompt = [f"{ANCHOR}, instrumental, flute and piano"]
    tiles_for(pipeline, prompt, guidance)
    start = time.perf_counter()
    tiles_for(pipeline, prompt, guidance)
    return time.perf_counter() - start

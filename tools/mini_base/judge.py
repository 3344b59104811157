"""Judging a mini base by its shipped weights: the VAE's round trip, prompt adherence, diversity, novelty, time."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from sdxl_mel.corpus.instruments import INSTRUMENTS
from sdxl_mel.metrics.intervals import proportion_interval
from sdxl_mel.metrics.oracle import Oracle, fit_oracle, statistics
from sdxl_mel.progress import track
from sdxl_mel.seeding import numpy_generator, torch_generator
from tools.mini_base.captions import ANCHOR
from tools.mini_base.data import SPEC, Pictures, Renders, renders
from tools.mini_base.vae import decoded, encoded, round_trip_error, to_levels

STEPS, GUIDANCE = 25, 5.0
BATCH = 20
MEMORY_TILES = 2000
"""Training tiles against which novelty is measured."""


@dataclass(frozen=True)
class JudgeData:
    """Renders for judging: what the oracle learns, and pieces that nothing learned."""

    learned: list[Renders]
    seen: Renders
    unseen: Renders
    new_instruments: Renders


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
        new_instruments=duets(renders(folder, "test-seen", 200, group="left-out", workers=workers)),
    )


def duets(source: Renders) -> Renders:
    """Return the tracks of two instruments."""
    kept = [index for index, row in enumerate(source.about) if len(instruments_of(row)) == 2]
    return Renders(source.pictures[kept], [source.about[index] for index in kept])


def instruments_of(row: dict[str, object]) -> list[str]:
    """Return the instruments of a description."""
    return list(row["instruments"])  # type: ignore[call-overload]


def fit_on_round_trips(data: JudgeData, vae: torch.nn.Module) -> Oracle:
    """Return the oracle fitted to real tiles and to the same tiles after the VAE; never to generated ones."""
    tiles = np.concatenate([source.tiles() for source in data.learned])
    about = [row for source in data.learned for row in source.about]
    after = through(vae, tiles)
    return fit_oracle(
        np.concatenate([tiles, after]),
        [instruments_of(row) for row in about] * 2,
        [row["style"] == "chorale" for row in about] * 2,
        list(INSTRUMENTS),
    )


def through(vae: torch.nn.Module, tiles: Pictures) -> Pictures:
    """Return tiles after the VAE and 8 bits."""
    parts = np.array_split(tiles, max(1, len(tiles) // BATCH))
    return np.concatenate([decoded(vae, encoded(vae, part)) for part in track(parts, len(parts), "through the VAE")])


def generate(pipeline: StableDiffusionXLPipeline, prompts: list[str], guidance: float, seed: int = 0) -> Pictures:
    """Return a tile for each prompt, (n, 128, 256); the noise of a tile depends on its place alone."""
    made = []
    starts = range(0, len(prompts), BATCH)
    for start in track(starts, len(starts), "generating", "batches"):
        some = prompts[start : start + BATCH]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=len(prompts) > 1):
            images = pipeline(
                some,
                height=SPEC.n_mels,
                width=SPEC.width,
                num_inference_steps=STEPS,
                guidance_scale=guidance,
                generator=[torch_generator(seed, "judge", start + index) for index in range(len(some))],
                output_type="pt",
            ).images
        made.append(to_levels(images.float() * 2 - 1))
    return np.concatenate(made)


def judge(folder: Path, data: JudgeData, oracle: Oracle, prompts: int, guidance: float) -> list[tuple[str, str]]:
    """Return (what, figure) lines for the pipeline at `folder`."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    lines = [("size of the folder", f"{sum(file.stat().st_size for file in folder.rglob('*')) / 1e6:.1f} MB")]
    real = np.concatenate([data.seen.tiles()[:prompts], data.unseen.tiles()[:prompts]])
    after = through(pipeline.vae, real)
    psnr, error = round_trip_error(real, after)
    lines.append(("VAE round trip, held-out pieces", f"PSNR {psnr:.2f} dB, mel error {error:.2f} dB, N {len(real)}"))
    made_of = {}
    for name, source in (("seen pairs", data.seen), ("held-out pairs", data.unseen)):
        rows = source.about[:prompts]
        made = generate(pipeline, [f"{ANCHOR}, {row['captions'][0]}" for row in rows], guidance)  # type: ignore[index]
        made_of[name] = made
        tiles = source.tiles()[:prompts]
        lines += adherence(
            oracle, name, rows, {"generated": made, "real": tiles, "real + VAE": through(pipeline.vae, tiles)}
        )
    generated = np.concatenate(list(made_of.values()))
    lines += variety(oracle, generated, after, through(pipeline.vae, _spread(data.learned[0].tiles(), MEMORY_TILES)))
    lines.append(
        ("one tile of 25 steps", f"{_seconds_a_tile(pipeline, guidance):.2f} s on {torch.get_num_threads()} threads")
    )
    return lines


def adherence(
    oracle: Oracle, name: str, rows: list[dict[str, object]], sets: dict[str, Pictures]
) -> list[tuple[str, str]]:
    """Return the share of tiles with both instruments found, beside the floor of shuffled captions, and of styles."""
    wanted = [instruments_of(row) for row in rows]
    shuffled = [wanted[index] for index in numpy_generator(0, "shuffled captions").permutation(len(wanted))]
    chorales = np.array([row["style"] == "chorale" for row in rows])
    lines = []
    for what, tiles in sets.items():
        both = sum(map(all, oracle.found(tiles, wanted)))
        floor = np.mean([all(flags) for flags in oracle.found(tiles, shuffled)])
        interval = proportion_interval(both, len(rows))
        style = np.mean(oracle.chorales(tiles) == chorales)
        figure = f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f}), N {len(rows)}"
        lines.append(
            (f"{name}, {what}: both instruments", f"{figure}; shuffled captions {floor:.3f}; style {style:.3f}")
        )
    pairs = len(oracle.labels) * (len(oracle.labels) - 1) // 2
    return [*lines, (f"{name}: chance", f"{1 / pairs:.4f}")]


def variety(oracle: Oracle, made: Pictures, real: Pictures, training: Pictures) -> list[tuple[str, str]]:
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


def _spread(tiles: Pictures, count: int) -> Pictures:
    return tiles[:: max(1, len(tiles) // count)][:count]


def _seconds_a_tile(pipeline: StableDiffusionXLPipeline, guidance: float) -> float:
    prompt = [f"{ANCHOR}, instrumental, flute and piano"]
    generate(pipeline, prompt, guidance)
    start = time.perf_counter()
    generate(pipeline, prompt, guidance)
    return time.perf_counter() - start

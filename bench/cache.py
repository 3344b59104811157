"""What `sdxl-mel cache` adds to the bare forward pass of the VAE, and how quickly a large cache opens."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from bench.table import Table
from sdxl_mel.dataset.cache import make_shards, picture_encoder
from sdxl_mel.dataset.cache_plan import deal_shards, latent_bytes
from sdxl_mel.files.cache import (
    CachedExample,
    CacheHeader,
    ShardHeader,
    latent_shape,
    latents_key,
    open_cache,
    shard_name,
    write_cache,
    write_shard,
)
from sdxl_mel.files.spectrogram import Spectrogram, read_tile, write_spectrogram
from sdxl_mel.models.vae import images_of
from sdxl_mel.progress import progress
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import PRESETS, MelSpec

REPEATS = 3
PICTURES = 10_000
BATCH_PIXELS = 1 << 20
MINI_VAE = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 1}
SDXL_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}


def run() -> Table:
    """Measure both; weights are random, because speed does not depend on them."""
    with tempfile.TemporaryDirectory() as place:
        rows = [
            encoding("mini's VAE, mini tiles", MINI_VAE, PRESETS["mini"], 64, Path(place) / "mini"),
            encoding("SDXL's VAE, mini tiles", SDXL_VAE, PRESETS["mini"], 6, Path(place) / "sdxl"),
            opening(Path(place) / "open"),
        ]
    return Table(
        "cache",
        [
            "what",
            "bare VAE, batches of 1, s",
            f"bare VAE, {BATCH_PIXELS >> 20} Mpixel batches, s",
            "cache, s",
            "cache / best bare",
        ],
        rows,
        [
            f"Median of {REPEATS} alternating runs, float32, the same pictures; the cache reads PNGs, encodes, "
            "checks and writes shards.",
            f"Opening {PICTURES} mini pictures reads the lists and every shard's header; rows are read when asked for.",
        ],
    )


def encoding(name: str, config: dict[str, object], spec: MelSpec, count: int, folder: Path) -> list[str]:
    """Time the bare forward pass and the cache over the same pictures, in turns."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        **config,
    ).eval()
    paths = [write_picture(folder / f"{index}.png", spec, index) for index in range(count)]
    labels = {latents_key(sha256_file(path), "bench"): str(path) for path in paths}
    shards = deal_shards("latents", {}, labels.items(), latent_bytes(spec))
    size = max(1, BATCH_PIXELS // (spec.width * spec.n_mels))
    ordered = [Path(label) for shard in shards for _, label in shard.rows]
    images = images_of(np.stack([read_tile(path, spec) for path in ordered]), spec.low_at)

    def bare(size: int) -> None:
        with torch.no_grad():
            for batch in images.split(size):
                vae.encode(batch)

    def cached() -> None:
        encoder = picture_encoder(vae, spec, BATCH_PIXELS)
        with tempfile.TemporaryDirectory(dir=folder) as out, progress(count, "", "") as ticker:
            make_shards(Path(out), shards, {}, encoder, ticker)

    seconds = in_turns(lambda: bare(1), lambda: bare(size), cached)
    single, batched, whole = (statistics.median(times) for times in seconds)
    ratio = whole / min(single, batched)
    return [f"{name}, {count} pictures", f"{single:.2f}", f"{batched:.2f}", f"{whole:.2f}", f"{ratio:.3f}"]


def in_turns(*calls: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of each call, REPEATS times in turns after one warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(REPEATS + 1):
        for times, call in zip(seconds, calls):
            start = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - start)
    return seconds


def write_picture(path: Path, spec: MelSpec, seed: int) -> Path:
    """Write a picture that compresses about as well as music does: smooth noise."""
    shape = (spec.n_mels, spec.width, 1 if spec.channels == "grey" else 3)
    noise = numpy_generator(seed, "bench cache").normal(128.0, 10.0, shape)
    write_spectrogram(path, Spectrogram(np.clip(noise, 0, 255).astype(np.uint8), spec))
    return path


def opening(folder: Path) -> list[str]:
    """Time the opening of a large cache of zeros."""
    spec, about = PRESETS["mini"], {"vae": "bench"}
    rows = {latents_key(str(index), "bench"): f"train/{index}.png" for index in range(PICTURES)}
    shards = deal_shards("latents", about, rows.items(), latent_bytes(spec))
    for shard in shards:
        keys = tuple(key for key, _ in shard.rows)
        zeros = torch.zeros(len(keys), *latent_shape(spec))
        write_shard(folder / shard.name, ShardHeader(kind="latents", about=about, keys=keys), zeros, zeros.clone())
    text = f"text/{shard_name('text', about, ['text'])}"
    header = ShardHeader(kind="text", about=about, keys=("text",), labels=("",))
    write_shard(folder / text, header, torch.zeros(1, 77, 256), torch.zeros(1, 128))
    examples = [CachedExample(key, path, "track", 1.0, 1, "", (key,), ("text",)) for key, path in rows.items()]
    write_cache(
        folder,
        CacheHeader(
            spec=spec,
            anchor="mel spectrogram",
            clip_skip=0,
            identity={},
            scaling_factor=1.0,
            empty_text="text",
            shards=(*(shard.name for shard in shards), text),
            examples_sha256="",
            counts={},
            record=Record(stage="bench"),
        ),
        {"train": examples},
    )
    (seconds,) = in_turns(lambda: open_cache(folder))
    return [f"open {PICTURES} pictures", "", "", f"{statistics.median(seconds):.2f}", ""]

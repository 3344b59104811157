"""Distil the small decoder of the mini base and judge it, or train the decoder of its VAE.

    python tools/train_mini_decoder.py --work DIR
    python tools/train_mini_decoder.py --task decoder --base BASE --work DIR
    python tools/train_mini_decoder.py --judge sdxl_mel/assets/mini --tiles DIR/dataset/validation

Run it from the root of the repository with the extra `demo` installed; it can be stopped and started again. Renders of
the base's own training pieces become a dataset and a cache, and `sdxl-mel train` does the rest; a decoder goes on from
the result of its first config with the second. The result, DIR/run/small_decoder or DIR/adversarial/vae, is copied to
sdxl_mel/assets/mini by hand, once it is judged better. The decoder that ships began from the base that
tools/train_mini_base.py leaves. Tiles of any dataset are judged, through the VAE's own decoder and through the small
one; `python -m bench.decoder` judges VAEs.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from sdxl_mel.commands import run_command
from sdxl_mel.corpus.tracks import Split
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.run import VAE_NAME, is_run
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.models.base import open_base
from sdxl_mel.models.small_decoder import read_small_decoder
from sdxl_mel.models.vae import decode, encode, images_of, values_of_images
from sdxl_mel.record import Record
from sdxl_mel.sound.pixels import quantise
from tools.mini_base.captions import ANCHOR
from tools.mini_base.data import FRAMES, SPEC, renders


class Recipe(NamedTuple):
    """The configs of a task by the names of their runs, and its training tracks: so many of each seed."""

    configs: Mapping[str, str]
    tracks: int
    seeds: Sequence[int]


RECIPES = {
    "small-decoder": Recipe({"run": "configs/mini-small-decoder.toml"}, 1200, (0,)),
    "decoder": Recipe(
        {"run": "configs/mini-decoder.toml", "adversarial": "configs/mini-decoder-adversarial.toml"}, 400, range(1, 6)
    ),
}
HELD_OUT = 48
MOST_JUDGED = 60
BATCH = 4


def main() -> None:
    """Render, cache, distil; what is there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("small-decoder"), help="folder for renders, cache and run")
    parser.add_argument("--task", choices=RECIPES, default="small-decoder")
    parser.add_argument("--base", default="mini", help="base whose VAE is taught or trained")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judge", type=Path, help="judge the small decoder in this folder instead of training one")
    parser.add_argument("--tiles", type=Path, help="folder of the tiles that are judged")
    arguments = parser.parse_args()
    if arguments.judge:
        print("\n".join(judged(arguments.judge, sorted(arguments.tiles.glob("*.png"))[:MOST_JUDGED])))
        return
    work, task = arguments.work, arguments.task
    (work / "renders").mkdir(parents=True, exist_ok=True)
    if not (work / "dataset" / "dataset.json").exists():
        write_tiles(work, RECIPES[task], arguments.threads)
    dataset, cache, base = work / "dataset", work / "cache", arguments.base
    run_command("cache", ["--dataset", str(dataset), "--base", base, "--out", str(cache), "--variants", "1"])
    before: list[str] = []
    for name, config in RECIPES[task].configs.items():
        run = work / name
        words = ["--task", task, "--config", config, "--base", base, *before, "--cache", str(cache)]
        words += ["--dataset", str(dataset)] if task == "decoder" else []
        words += ["--resume"] if is_run(run) else []
        print(run_command("train", [*words, "--out", str(run)]).summary())
        before = ["--vae", str(run / VAE_NAME)]


def write_tiles(work: Path, recipe: Recipe, threads: int) -> None:
    """Write a tile of every track, its middle, as a dataset."""
    splits = {}
    start = (FRAMES - SPEC.width) // 2
    plans: dict[Split, list[tuple[int, int]]] = {
        "train": [(recipe.tracks, seed) for seed in recipe.seeds],
        "validation": [(HELD_OUT, 0)],
    }
    for split, parts in plans.items():
        sources = [renders(work / "renders", split, count, seed=seed, workers=threads) for count, seed in parts]
        (work / "dataset" / split).mkdir(parents=True, exist_ok=True)
        items = []
        for index, (picture, about) in enumerate(pair for each in sources for pair in zip(each.pictures, each.about)):
            name = f"{split}/{index:05d}.png"
            levels = picture[:, start : start + SPEC.width, None].copy()
            write_spectrogram(work / "dataset" / name, Spectrogram(levels, SPEC))
            captions = tuple(f"{ANCHOR}, {caption}" for caption in about["captions"])  # type: ignore[attr-defined]
            items.append(Item(file=name, captions=captions, track=f"{split}-{index}"))
        splits[split] = items
    write_dataset(work / "dataset", Dataset(SPEC, ANCHOR, splits, Record(stage="train_mini_decoder")))


@torch.inference_mode()
def judged(folder: Path, tiles: list[Path]) -> Iterator[str]:
    """Yield what the small decoder in a folder makes of tiles, beside what mini's VAE makes of them, on one thread."""
    torch.set_num_threads(1)
    vae, small = open_base("mini", ("vae",)).vae, read_small_decoder(folder)
    real = np.stack([read_spectrogram(tile).levels for tile in tiles])
    made: dict[str, list[NDArray[np.uint8]]] = {"VAE": [], "small": []}
    seconds = dict.fromkeys(made, 0.0)
    for start in range(0, len(real), BATCH):
        latents = encode(vae, images_of(real[start : start + BATCH], SPEC.low_at)).mean
        for name, model in (("VAE", vae), ("small", small)):
            began = time.process_time()
            images = decode(model, latents)
            seconds[name] += time.process_time() - began
            made[name].append(quantise(values_of_images(images, 1, SPEC.low_at)))
    own, other = (np.concatenate(made[name]) for name in made)
    bias = (other.astype(float) - own).mean()
    yield f"{len(real)} tiles; small against VAE: {_distance(other, own)}, bias {bias:+.2f} levels"
    for name, levels in (("VAE", own), ("small", other)):
        texture = 10 * np.log10(_fast_energy(levels) / _fast_energy(real))
        yield f"{name} against real: {_distance(levels, real)}; fast changes in time {texture:+.1f} dB"
    yield f"time: {seconds['small'] / seconds['VAE']:.2f} of the VAE's, {seconds['small'] / len(real):.3f} s a tile"


def _distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> str:
    root = float(np.sqrt(np.mean(np.square(one.astype(float) - other))))
    return f"{20 * np.log10(255 / root):.2f} dB, RMSE {root:.2f} levels"


def _fast_energy(levels: NDArray[np.uint8]) -> float:
    """Return the energy in the upper half of the modulation frequencies in time."""
    spectrum = np.abs(np.fft.rfft(levels[..., 0].astype(float), axis=-1)) ** 2
    return float(spectrum[..., spectrum.shape[-1] // 2 :].sum())


if __name__ == "__main__":
    main()

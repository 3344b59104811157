"""Distil the small decoder of the mini base: `python tools/train_mini_decoder.py --work DIR`.

Run it from the root of the repository with the extra `demo` installed; it can be stopped and started again. Renders of
the base's own training pieces become a dataset and a cache, and `sdxl-mel train --task small-decoder` does the rest.
The result, DIR/run/small_decoder, is copied to sdxl_mel/assets/mini by hand, once it is judged better.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sdxl_mel.commands import run_command
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.run import is_run
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from tools.mini_base.captions import ANCHOR
from tools.mini_base.data import FRAMES, SPEC, renders

TRACKS = {"train": 1200, "validation": 48}
CONFIG = "configs/mini-small-decoder.toml"


def main() -> None:
    """Render, cache, distil; what is there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, cache and run")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    work = arguments.work
    (work / "renders").mkdir(parents=True, exist_ok=True)
    if not (work / "dataset" / "dataset.json").exists():
        write_tiles(work, arguments.threads)
    cache, run = work / "cache", work / "run"
    run_command("cache", ["--dataset", str(work / "dataset"), "--base", "mini", "--out", str(cache), "--variants", "1"])
    resume = ["--resume"] if is_run(run) else []
    words = ["--task", "small-decoder", "--config", CONFIG, "--base", "mini", "--cache", str(cache), "--out", str(run)]
    print(run_command("train", [*words, *resume]).summary())


def write_tiles(work: Path, threads: int) -> None:
    """Write a tile of every track, its middle, as a dataset."""
    splits = {}
    start = (FRAMES - SPEC.width) // 2
    for split, count in TRACKS.items():
        source = renders(work / "renders", split, count, workers=threads)
        (work / "dataset" / split).mkdir(parents=True, exist_ok=True)
        items = []
        for index, (picture, about) in enumerate(zip(source.pictures, source.about)):
            name = f"{split}/{index:05d}.png"
            levels = picture[:, start : start + SPEC.width, None].copy()
            write_spectrogram(work / "dataset" / name, Spectrogram(levels, SPEC))
            captions = tuple(f"{ANCHOR}, {caption}" for caption in about["captions"])  # type: ignore[attr-defined]
            items.append(Item(file=name, captions=captions, track=f"{split}-{index}"))
        splits[split] = items
    write_dataset(work / "dataset", Dataset(SPEC, ANCHOR, splits, Record(stage="train_mini_decoder")))


if __name__ == "__main__":
    main()

"""A small dataset of random pictures, its cache made by the real stage with the tiny SDXL, and trajectories."""

from pathlib import Path

from sdxl_mel.commands import run_command
from sdxl_mel.config import StageReport
from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages import cache

SMALL = PRESETS["mini"].model_copy(update={"n_mels": 32, "width": 64})
COUNTS = {"train": 10, "validation": 3, "regularization": 5}


def write_small_cache(folder: Path, base: Path, counts: dict[str, int] | None = None) -> Path:
    """Write a dataset with `counts` clips a split under `folder`, cache it, and return the cache's folder."""
    splits = {}
    for split, count in (counts or COUNTS).items():
        items = []
        for index in range(count):
            name = f"{split}/{index:03d}.png"
            levels = numpy_generator(0, name).integers(0, 256, (SMALL.n_mels, SMALL.width, 1)).astype("uint8")
            (folder / "dataset" / split).mkdir(parents=True, exist_ok=True)
            write_spectrogram(folder / "dataset" / name, Spectrogram(levels, SMALL))
            captions = (f"mel spectrogram, {split} {index}", f"mel spectrogram, number {index}")
            items.append(Item(file=name, captions=captions, track=f"{split}-{index // 2}", repeats=1 + index % 2))
        splits[split] = items
    write_dataset(folder / "dataset", Dataset(SMALL, "mel spectrogram", splits, Record(stage="test")))
    cache.run(cache.Build(dataset=folder / "dataset", base=str(base), out=folder / "cache", variants=1))
    return folder / "cache"


def draw_trajectories(base: Path | str, cache: Path, out: Path, *more: str, guidance: float = 3.0) -> StageReport:
    """Draw trajectories of four points for the captions of a cache, and return the stage's report."""
    words = ["--base", str(base), "--cache", str(cache), "--out", str(out), "--guidance", str(guidance)]
    return run_command("trajectories", [*words, "--steps", "4", *more])

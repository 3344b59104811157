"""A prepared dataset of small random pictures, for tests of what reads one."""

from pathlib import Path

import numpy as np

from sdxl_mel.files.dataset import Dataset, Item, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

SMALL = MelSpec(
    sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=32, width=64, fmax=8000.0, channels="grey"
)
ANCHOR = "mel spectrogram"


def write_tiles(folder: Path, clips: int = 12, offsets: int = 1, spec: MelSpec = SMALL, seed: int = 0) -> Path:
    """Write a dataset of `clips` pictures, every fourth one for validation, each at `offsets` time offsets."""
    items: dict[str, list[Item]] = {"train": [], "validation": []}
    for index in range(clips):
        split = "validation" if index % 4 == 3 else "train"
        names = [f"{split}/{index:04d}.png", *(f"{split}/offsets/{index:04d}-{k}.png" for k in range(1, offsets))]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_noise(folder / name, spec, seed=hash((seed, index, len(name))) % 2**32)
        items[split].append(
            Item(
                file=names[0],
                captions=(f"{ANCHOR}, violin, piano, slow {index // 2}", f"{ANCHOR}, A violin plays, slowly."),
                track=f"track {index // 2}",
                offset_files=tuple(names),
            )
        )
    write_dataset(folder, Dataset(spec, ANCHOR, items, Record(stage="prepare")))
    return folder


def write_noise(path: Path, spec: MelSpec, seed: int) -> None:
    """Write one picture of noise."""
    shape = (spec.n_mels, spec.width, 1 if spec.channels == "grey" else 3)
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    write_spectrogram(path, Spectrogram(levels, spec))

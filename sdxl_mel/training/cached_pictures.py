"""The pictures of which a cache holds the latents, read from the dataset that it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sdxl_mel.errors import MismatchError
from sdxl_mel.files.cache import Cache, CachedExample, latents_key
from sdxl_mel.files.dataset import Dataset, Item, read_dataset
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.models.vae import images_of
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import require_equal


@dataclass(frozen=True)
class CachedPictures:
    """The dataset of a cache, its clips by the name of their picture."""

    dataset: Dataset
    cache: Cache
    items: Mapping[str, Item]

    def image(self, example: CachedExample, offset: int = 0) -> Tensor:
        """Return the picture of a clip at a time offset, (3, height, width) in -1..1.

        Raises MismatchError for another picture than the one whose latents the cache holds.
        """
        path, spec = self.dataset.path(self.items[example.source], offset), self.dataset.spec
        if latents_key(sha256_file(path), self.cache.header.identity["vae"]) != example.offsets[offset]:
            raise MismatchError(f"{path}: changed since {self.cache.folder} was made; run sdxl-mel cache again")
        return images_of(read_tile(path, spec)[None], spec.low_at)[0]


def open_pictures(folder: Path, cache: Cache, splits: Mapping[str, Sequence[CachedExample]]) -> CachedPictures:
    """Open the dataset of a cache. Raises MismatchError for one of another spec, or that lacks a clip of `splits`."""
    dataset = read_dataset(folder)
    require_equal(dataset.spec, cache.header.spec, str(folder), f"cache {cache.folder}")
    items = {item.file: item for split in dataset.splits.values() for item in split}
    needed = {example.source: len(example.offsets) for examples in splits.values() for example in examples}
    lost = [name for name, offsets in needed.items() if name not in items or len(items[name].offset_files) < offsets]
    if lost:
        raise MismatchError(
            f"{folder}: lacks {len(lost)} of {len(needed)} pictures of {cache.folder}, first: {lost[0]}; give the "
            "dataset that the cache was made of, or run sdxl-mel cache again"
        )
    return CachedPictures(dataset, cache, items)

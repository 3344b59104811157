"""An instrument oracle: which instruments of the corpus does a tile hold?

Statistics of the mel picture and a linear classifier with one output an instrument and one for the style. It is made
for the `mini` preset and the soundfont of the corpus, and for nothing else. Train it on real tiles and on the same
after the VAE: trained on real ones alone it leans on the texture of noise, which a VAE changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError, InputError

Pictures = NDArray[np.uint8] | Float

CEPSTRA = 24


@dataclass(frozen=True)
class Oracle:
    """The fitted classifier: `weight` (features, labels + 1), the last column is for a chorale against a folk tune."""

    labels: tuple[str, ...]
    mean: Float
    scale: Float
    weight: Float
    bias: Float

    def logits(self, pictures: Pictures) -> Float:
        """Return (tiles, labels + 1) log odds for tiles (n, n_mels, frames), lowest band in row 0."""
        return self.normal(statistics(pictures)) @ self.weight + self.bias

    def normal(self, features: Float) -> Float:
        """Return statistics as deviations from the training tiles: also the space for distances between tiles."""
        return (features - self.mean) / self.scale

    def found(self, pictures: Pictures, wanted: Sequence[Sequence[str]]) -> list[list[bool]]:
        """Return for each tile and wanted instrument whether it is among the as many most likely ones.

        Raises InputError for an instrument that the oracle does not know.
        """
        unknown = sorted({name for names in wanted for name in names} - set(self.labels))
        if unknown:
            raise InputError(f"the oracle does not know {', '.join(unknown)}; it knows {', '.join(self.labels)}")
        if len(pictures) != len(wanted):
            raise InputError(f"{len(pictures)} tiles but {len(wanted)} lists of wanted instruments")
        order = np.argsort(-self.logits(pictures)[:, : len(self.labels)], axis=1)
        flags = []
        for likely, names in zip(order, wanted):
            first = {self.labels[index] for index in likely[: len(names)]}
            flags.append([name in first for name in names])
        return flags


def load_oracle(path: Path | None = None) -> Oracle:
    """Read an oracle, the shipped one without `path`. Raises FormatError for another file."""
    if path is None:
        with as_file(files("sdxl_mel").joinpath("assets/oracle.safetensors")) as shipped:
            return load_oracle(shipped)
    try:
        with safe_open(path, "numpy") as file:
            labels = tuple((file.metadata() or {})["labels"].split(","))
            return Oracle(labels, *(file.get_tensor(name) for name in ("mean", "scale", "weight", "bias")))
    except (SafetensorError, KeyError, FileNotFoundError) as error:
        raise FormatError(
            f"{path}: not an instrument oracle ({error}); fit one with tools/train_mini_base.py"
        ) from error


def statistics(pictures: Pictures) -> Float:
    """Return the statistics of tiles (n, n_mels, frames), levels or values in 0..1: (n, features).

    A band: mean, deviation, 20th and 90th percentile, mean rise and mean fall from frame to frame. Of the first
    cepstra: the covariances of themselves and of their rises.
    """
    if pictures.ndim != 3 or len(pictures) == 0:
        raise InputError(f"the oracle takes tiles (n, n_mels, frames), not an array of shape {pictures.shape}")
    return np.stack([_statistics_of(picture) for picture in pictures])


def _statistics_of(picture: Pictures) -> Float:
    values = picture.astype(np.float32) / np.float32(255 if picture.dtype == np.uint8 else 1)
    change = np.diff(values, axis=1)
    low, high = np.percentile(values, (20, 90), axis=1)
    bands = [values.mean(1), values.std(1), low, high, np.maximum(change, 0).mean(1), np.minimum(change, 0).mean(1)]
    cepstra = scipy.fft.dct(values, axis=0, norm="ortho")[:CEPSTRA]
    triangle = np.triu_indices(CEPSTRA)
    spread = [np.cov(part)[triangle] for part in (cepstra, np.diff(cepstra, axis=1))]
    roots = [np.sign(part) * np.sqrt(np.abs(part)) for part in spread]
    return np.concatenate([*bands, *roots]).astype(np.float32)

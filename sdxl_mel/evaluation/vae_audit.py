"""Send clips through a VAE, compare pictures, and turn some of both kinds into sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.vae_audit_report import Band, ClipReport, Report
from sdxl_mel.files.dataset import Dataset, Item
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.metrics.picture_fidelity import band_edges_hz, mean_square, mel_convergence_db, mel_errors_db, psnr_db
from sdxl_mel.models.vae import decode, encode, images_of, values_of_images
from sdxl_mel.options import Method
from sdxl_mel.progress import progress, track
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise

BANDS = 8
EXTREMES = 3
"""How many of the best and of the worst clips are shown."""


@dataclass(frozen=True)
class Clip:
    """A picture before and after the VAE, values in 0..1 (n_mels, frames, channels), and how they differ."""

    source: str
    before: Float
    after: Float
    mean_square: float
    band_error_db: Float
    band_change_db: Float

    @property
    def mel_error_db(self) -> float:
        """Return the mean absolute error in dB."""
        return float(self.band_error_db.mean())


@dataclass(frozen=True)
class Heard:
    """The sounds (1 or 2, n) of a clip's two pictures, and how well each has the mel spectrogram of the first."""

    without: Float
    with_vae: Float
    convergence_without_db: float
    convergence_with_db: float


def choose_clips(dataset: Dataset, split: str | None, count: int, seed: int) -> tuple[str, list[Item]]:
    """Return the split and up to `count` of its clips, drawn at random, in the order of the dataset."""
    found = [name for name in ("test", "validation", "train") if dataset.splits.get(name)]
    if split is None and not found:
        raise InputError(f"{dataset.folder}: no clips; run sdxl-mel prepare on some sound")
    name = split or found[0]
    items = dataset.splits.get(name)
    if not items:
        raise InputError(f"{dataset.folder}: no clips in split {name!r}; there are {', '.join(found) or 'none'}")
    drawn = numpy_generator(seed, "vae-audit").permutation(len(items))[:count]
    return name, [items[index] for index in sorted(drawn)]


def measure_clips(vae: Any, dataset: Dataset, items: Sequence[Item], batch_pixels: int) -> list[Clip]:
    """Return every clip with its round trip through the VAE's posterior mean, best first."""
    spec, clips = dataset.spec, []
    width, height = spec.size
    size = max(1, batch_pixels // (width * height))
    with progress(len(items), "through the VAE", "clips") as ticker:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            levels = np.stack([read_tile(dataset.path(item), spec) for item in batch])
            mean, _ = encode(vae, images_of(levels, spec.low_at), [str(dataset.path(item)) for item in batch])
            after = values_of_images(decode(vae, mean), levels.shape[-1], spec.low_at)
            clips += [_compared(item.file, dequantise(levels[i]), after[i], spec) for i, item in enumerate(batch)]
            ticker.advance(len(batch))
    return sorted(clips, key=lambda clip: clip.mel_error_db)


def hear_clips(clips: Sequence[Clip], spec: MelSpec, count: int, method: Method, seed: int) -> dict[int, Heard]:
    """Turn clips into sound: the extremes, and `count` evenly from the best to the worst; keys are ranks."""
    ranks = sorted({*evenly(len(clips), count), *extremes(len(clips))})
    return {rank: _heard(clips[rank], spec, method, seed) for rank in track(ranks, len(ranks), "to sound", "clips")}


def evenly(clips: int, count: int) -> list[int]:
    """Return up to `count` ranks spread evenly from the best to the worst."""
    return sorted(set(np.linspace(0, clips - 1, count).round().astype(int).tolist()))


def extremes(clips: int) -> list[int]:
    """Return the ranks of the best and of the worst clips."""
    return sorted({*range(min(EXTREMES, clips)), *range(max(0, clips - EXTREMES), clips)})


def summarise(
    clips: Sequence[Clip], heard: dict[int, Heard], *, count: int, spec: MelSpec, page: Path, split: str
) -> Report:
    """Return the figures over all clips; those of sound are means over `count` ranks spread evenly."""
    edges = band_edges_hz(spec, BANDS)
    error = np.mean([clip.band_error_db for clip in clips], axis=0)
    change = np.mean([clip.band_change_db for clip in clips], axis=0)
    fair = [heard[rank] for rank in evenly(len(clips), count)]
    return Report(
        page=page,
        split=split,
        psnr_db=psnr_db(float(np.mean([clip.mean_square for clip in clips]))),
        mel_error_db=float(error.mean()),
        convergence_without_db=float(np.mean([one.convergence_without_db for one in fair])),
        convergence_with_db=float(np.mean([one.convergence_with_db for one in fair])),
        bands=tuple(
            Band(low_hz=edges[i], high_hz=edges[i + 1], error_db=error[i], change_db=change[i]) for i in range(BANDS)
        ),
        clips=tuple(_reported(clip, heard.get(rank)) for rank, clip in enumerate(clips)),
    )


def _compared(source: str, before: Float, after: Float, spec: MelSpec) -> Clip:
    groups = np.array_split(mel_errors_db(before, after, spec), BANDS, axis=0)
    return Clip(
        source=source,
        before=before,
        after=after,
        mean_square=mean_square(before, after),
        band_error_db=np.array([np.abs(group).mean() for group in groups], dtype=np.float32),
        band_change_db=np.array([group.mean() for group in groups], dtype=np.float32),
    )


def _heard(clip: Clip, spec: MelSpec, method: Method, seed: int) -> Heard:
    without, with_vae = (invert(values, spec, method, seed) for values in (clip.before, clip.after))
    return Heard(
        without=without,
        with_vae=with_vae,
        convergence_without_db=mel_convergence_db(clip.before, without, spec),
        convergence_with_db=mel_convergence_db(clip.before, with_vae, spec),
    )


def _reported(clip: Clip, heard: Heard | None) -> ClipReport:
    return ClipReport(
        source=clip.source,
        psnr_db=min(psnr_db(clip.mean_square), 200.0),
        mel_error_db=clip.mel_error_db,
        convergence_without_db=heard.convergence_without_db if heard else None,
        convergence_with_db=heard.convergence_with_db if heard else None,
    )

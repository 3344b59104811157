"""What a VAE costs: pictures before and after it, compared as pictures and as sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from accelerate import PartialState

from sdxl_mel.arrays import Float, Owner, Vectors
from sdxl_mel.devices import find_device
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.clips import pairs_hash
from sdxl_mel.evaluation.embeddings import SetEmbeddings
from sdxl_mel.evaluation.vae_figures import AuditFigures, ClipErrors, Distances, FrequencyRange, Heard
from sdxl_mel.files.dataset import Dataset, Item, read_dataset
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.metrics.embedders.base import AudioEmbedder
from sdxl_mel.metrics.embedders.registry import Sources, open_embedder
from sdxl_mel.metrics.frechet import distance_between, distance_change
from sdxl_mel.metrics.intervals import tied_interval
from sdxl_mel.metrics.options import EmbedderName
from sdxl_mel.metrics.picture_fidelity import (
    band_edges_hz,
    mean_square,
    mel_convergence_db,
    mel_errors_db,
    psnr_db,
)
from sdxl_mel.metrics.texture import energy_change_db, modulation_energy
from sdxl_mel.models.base import open_base
from sdxl_mel.models.vae import reconstruct
from sdxl_mel.options import Method
from sdxl_mel.progress import progress, track
from sdxl_mel.record import sha256_file
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec, require_equal
from sdxl_mel.sound.pixels import dequantise

BANDS = 8
EXTREMES = 3
"""How many of the best and of the worst clips are shown."""


@dataclass(frozen=True)
class Clip:
    """A picture before and after the VAE, values in 0..1 (n_mels, frames, channels), and how they differ.

    Energies are those of changes in time (see `metrics.texture`).
    """

    source: str
    before: Float
    after: Float
    mean_square: float
    band_error_db: Float
    band_change_db: Float
    energy_before: Vectors
    energy_after: Vectors

    @property
    def mel_error_db(self) -> float:
        """Return the mean absolute error in dB."""
        return float(self.band_error_db.mean())


@dataclass(frozen=True)
class Sounds:
    """The sounds (1 or 2, n) of a clip's two pictures, and how well each has the mel spectrogram of the first."""

    without: Float
    with_vae: Float
    convergence_without_db: float
    convergence_with_db: float


@dataclass(frozen=True)
class VaeAudit:
    """The figures of an audit, its clips from the best to the worst, and the sounds of some of them by that rank.

    `inputs` are the hashes of the VAE and of the pictures, for the record. `against` has the same clips, in the same
    order, through another VAE; `distances` are those of an embedder.
    """

    figures: AuditFigures
    clips: list[Clip]
    sounds: dict[int, Sounds]
    spec: MelSpec
    inputs: dict[str, str]
    against: "VaeAudit | None" = None
    distances: Distances | None = None

    def text(self, name: str = "") -> str:
        """Return the figures in lines, those of the other VAE under its name, and the distances."""
        lines = [self.figures.text()]
        if self.against is not None:
            lines += [f"{name}:", self.against.figures.text()]
        if (found := self.distances) is not None:
            lines.append(f"FAD of {found.embedder} {found.fad.text()}")
            if found.fad_against is not None and found.change is not None:
                lines.append(f"{name}: {found.fad_against.text()}; change {found.change.text()}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Measuring:
    """How clips are measured: how many are turned into sound, by what method, and the embedder that hears all."""

    inverted: int = 8
    method: Method = "best"
    seed: int = 0
    batch_pixels: int = 1 << 20
    embedder: EmbedderName | None = None


def audit_vae(
    folder: Path,
    base: str,
    measuring: Measuring,
    *,
    vae: str | None = None,
    against: str | None = None,
    base_config: Path | None = None,
    split: str | None = None,
    count: int = 64,
    device: str | None = None,
) -> VaeAudit:
    """Send `count` pictures of a prepared dataset through a base's VAE (or `vae`), and through `against` to compare.

    Raises InputError for a split without clips, MismatchError for a base made for another spec, MissingError for an
    embedder that is not there.
    """
    dataset = read_dataset(folder)
    place = find_device(device) if device else str(PartialState().device)
    opened = open_base(base, ("vae",), vae=vae, device=place, config=base_config)
    if opened.spec is not None:
        require_equal(opened.spec, dataset.spec, base, str(folder))
    embedder = open_embedder(measuring.embedder, Sources()) if measuring.embedder else None
    name, items = choose_clips(dataset, split, count, measuring.seed)
    clips = measure_clips(opened.vae, dataset, items, measuring.batch_pixels)
    pictures = {"pictures": pairs_hash((item.file, sha256_file(dataset.path(item))) for item in items)}
    sets, bases = [clips], [opened]
    if against is not None:
        other = open_base(base, ("vae",), vae=against, device=place, config=base_config)
        others = {clip.source: clip for clip in measure_clips(other.vae, dataset, items, measuring.batch_pixels)}
        sets.append([others[clip.source] for clip in clips])
        bases.append(other)
    sounds, distances = hear(sets, dataset.spec, measuring, embedder)
    mine, *earlier = (
        VaeAudit(
            summarise(clips, heard, measuring.inverted, dataset.spec, name),
            clips,
            heard,
            dataset.spec,
            inputs={"vae": each.identity_of("vae")},
        )
        for clips, heard, each in zip(sets, sounds, bases)
    )
    inputs = mine.inputs | {f"{part} against": digest for each in earlier for part, digest in each.inputs.items()}
    return replace(mine, inputs=inputs | pictures, against=next(iter(earlier), None), distances=distances)


def hear(
    sets: Sequence[Sequence[Clip]], spec: MelSpec, measuring: Measuring, embedder: AudioEmbedder | None
) -> tuple[list[dict[int, Sounds]], Distances | None]:
    """Turn clips of each set into sound, those that are shown or all of them for an embedder.

    Returns the shown sounds of each set by rank, and what the embedder finds.
    """
    count = len(sets[0])
    shown = {*evenly(count, measuring.inverted), *extremes(count)}
    ranks = sorted(shown) if embedder is None else range(count)
    kept: list[dict[int, Sounds]] = [{} for _ in sets]
    windows: list[list[Float]] = [[] for _ in range(len(sets) + 1)]
    for rank in track(ranks, len(ranks), "to sound", "clips"):
        without = invert(sets[0][rank].before, spec, measuring.method, measuring.seed)
        made = [_sounds(clips[rank], without, spec, measuring) for clips in sets]
        if embedder is not None:
            for found, sound in zip(windows, [without, *(each.with_vae for each in made)]):
                found.append(_windows(embedder, sound, spec.sample_rate))
        if rank in shown:
            for found_sounds, each in zip(kept, made):
                found_sounds[rank] = each
    return kept, distances_of(embedder.name, windows, measuring.seed) if embedder is not None else None


def distances_of(embedder: str, windows: Sequence[list[Float]], seed: int) -> Distances:
    """Return distances from embedded clips: those before the VAE, after it, and after another if there is one."""
    before, after, *other = [(each.rows, each.owner) for each in map(SetEmbeddings, windows)]

    def heard(statistic: Callable[..., float], *sets: tuple[Vectors, Owner]) -> Heard:
        interval = tied_interval(statistic, sets, seed)
        return Heard(value=interval.value, low=interval.low, high=interval.high)

    fad = heard(distance_between, after, before)
    if not other:
        return Distances(embedder=embedder, fad=fad)
    change = heard(distance_change, other[0], after, before)
    return Distances(embedder=embedder, fad=fad, fad_against=heard(distance_between, other[0], before), change=change)


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
            after = reconstruct(vae, levels, spec, [str(dataset.path(item)) for item in batch])
            clips += [_compared(item.file, dequantise(levels[i]), after[i], spec) for i, item in enumerate(batch)]
            ticker.advance(len(batch))
    return sorted(clips, key=lambda clip: clip.mel_error_db)


def evenly(clips: int, count: int) -> list[int]:
    """Return up to `count` ranks spread evenly from the best to the worst."""
    return sorted(set(np.linspace(0, clips - 1, count).round().astype(int).tolist()))


def extremes(clips: int) -> list[int]:
    """Return the ranks of the best and of the worst clips."""
    return sorted({*range(min(EXTREMES, clips)), *range(max(0, clips - EXTREMES), clips)})


def summarise(clips: Sequence[Clip], sounds: dict[int, Sounds], count: int, spec: MelSpec, split: str) -> AuditFigures:
    """Return the figures over all clips; those of sound are means over `count` ranks spread evenly."""
    edges = band_edges_hz(spec, BANDS)
    error = np.mean([clip.band_error_db for clip in clips], axis=0)
    change = np.mean([clip.band_change_db for clip in clips], axis=0)
    fair = [sounds[rank] for rank in evenly(len(clips), count)]
    return AuditFigures(
        split=split,
        psnr_db=psnr_db(float(np.mean([clip.mean_square for clip in clips]))),
        mel_error_db=float(error.mean()),
        level_bias_db=float(change.mean()),
        texture_db=tuple(energy_change_db(*_energies(clips)).tolist()),
        convergence_without_db=float(np.mean([one.convergence_without_db for one in fair])),
        convergence_with_db=float(np.mean([one.convergence_with_db for one in fair])),
        bands=tuple(
            FrequencyRange(low_hz=edges[i], high_hz=edges[i + 1], error_db=error[i], change_db=change[i])
            for i in range(BANDS)
        ),
        clips=tuple(_errors(clip, sounds.get(rank)) for rank, clip in enumerate(clips)),
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
        energy_before=modulation_energy(before),
        energy_after=modulation_energy(after),
    )


def _energies(clips: Sequence[Clip]) -> tuple[Vectors, Vectors]:
    """Return the energies before and after the VAE, of all clips together."""
    before, after = ([getattr(clip, name) for clip in clips] for name in ("energy_before", "energy_after"))
    return np.sum(before, axis=0), np.sum(after, axis=0)


def _windows(embedder: AudioEmbedder, sound: Float, rate: int) -> Float:
    mono = sound.mean(axis=0)
    return embedder.embed_audio(np.ascontiguousarray(soxr.resample(mono, rate, embedder.rate, quality="HQ")))


def _sounds(clip: Clip, without: Float, spec: MelSpec, measuring: Measuring) -> Sounds:
    with_vae = invert(clip.after, spec, measuring.method, measuring.seed)
    return Sounds(
        without=without,
        with_vae=with_vae,
        convergence_without_db=mel_convergence_db(clip.before, without, spec),
        convergence_with_db=mel_convergence_db(clip.before, with_vae, spec),
    )


def _errors(clip: Clip, sounds: Sounds | None) -> ClipErrors:
    return ClipErrors(
        source=clip.source,
        psnr_db=min(psnr_db(clip.mean_square), 200.0),
        mel_error_db=clip.mel_error_db,
        convergence_without_db=sounds.convergence_without_db if sounds else None,
        convergence_with_db=sounds.convergence_with_db if sounds else None,
    )

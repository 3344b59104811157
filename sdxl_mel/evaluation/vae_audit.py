"""What a VAE costs: pictures before and after it, compared as pictures and as sound, and the report of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from markupsafe import Markup
from matplotlib.figure import Figure

from sdxl_mel.arrays import Float
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.clips import pairs_hash
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.dataset import Dataset, Item, read_dataset
from sdxl_mel.files.header import Frozen
from sdxl_mel.files.spectrogram import Spectrogram, encode_png, read_tile
from sdxl_mel.metrics.picture_fidelity import (
    FLOOR_DB,
    band_edges_hz,
    mean_square,
    mel_convergence_db,
    mel_errors_db,
    psnr_db,
)
from sdxl_mel.models.base import open_base
from sdxl_mel.models.vae import reconstruct
from sdxl_mel.options import Method
from sdxl_mel.progress import progress, track
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.report.page import Page, Sound, gallery, paragraph, player, sound_bytes, svg, table
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import MelSpec, require_equal
from sdxl_mel.sound.pixels import dequantise, quantise

BANDS = 8
EXTREMES = 3
"""How many of the best and of the worst clips are shown."""
DEFINITIONS = (
    "PSNR: 8-bit values as 0..1, mean square over all clips. Mel error: mean absolute difference of all pixels in dB, "
    f"both pictures cut off {FLOOR_DB:.0f} dB under the loudest pixel. Mel convergence: the picture is turned into "
    "sound, the sound into a mel spectrogram M' again; 20 log10(|M - M'| / |M|), M being that of the picture before "
    "the VAE, so the difference of the two lines is what the VAE costs the sound; lower is better."
)


class FrequencyRange(Frozen):
    """A group of mel bands: the mean absolute error and the mean change of level, in dB."""

    low_hz: float
    high_hz: float
    error_db: float
    change_db: float


class ClipErrors(Frozen):
    """One clip: its errors, and the mel convergence of its sound without and with the VAE where it was inverted."""

    source: str
    psnr_db: float
    mel_error_db: float
    convergence_without_db: float | None = None
    convergence_with_db: float | None = None


class AuditFigures(Frozen):
    """What the VAE costs, over all clips and one by one, from the best to the worst; decibels."""

    split: str
    psnr_db: float
    mel_error_db: float
    convergence_without_db: float
    convergence_with_db: float
    bands: tuple[FrequencyRange, ...]
    clips: tuple[ClipErrors, ...]

    def text(self) -> str:
        """Return the figures in two lines."""
        worst = max(self.bands, key=lambda band: band.error_db)
        return (
            f"VAE round trip of {len(self.clips)} clips ({self.split}): PSNR {self.psnr_db:.1f} dB, "
            f"mel error {self.mel_error_db:.2f} dB, most ({worst.error_db:.2f} dB) at "
            f"{worst.low_hz:.0f} to {worst.high_hz:.0f} Hz\n"
            f"sound against its picture (mel convergence): {self.convergence_without_db:.1f} dB without the VAE, "
            f"{self.convergence_with_db:.1f} dB with it"
        )


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
class Sounds:
    """The sounds (1 or 2, n) of a clip's two pictures, and how well each has the mel spectrogram of the first."""

    without: Float
    with_vae: Float
    convergence_without_db: float
    convergence_with_db: float


@dataclass(frozen=True)
class VaeAudit:
    """The figures of an audit, its clips from the best to the worst, and the sounds of some of them by that rank.

    `inputs` are the hashes of the VAE and of the pictures, for the record.
    """

    figures: AuditFigures
    clips: list[Clip]
    sounds: dict[int, Sounds]
    spec: MelSpec
    inputs: dict[str, str]


def audit_vae(
    folder: Path,
    base: str,
    *,
    vae: str | None = None,
    base_config: Path | None = None,
    split: str | None = None,
    count: int = 64,
    inverted: int = 8,
    method: Method = "best",
    seed: int = 0,
    batch_pixels: int = 1 << 20,
    device: str | None = None,
) -> VaeAudit:
    """Send `count` pictures of a prepared dataset through a base's VAE (or `vae`), and turn `inverted` into sound.

    Raises InputError for a split without clips, MismatchError for a base made for another spec.
    """
    dataset = read_dataset(folder)
    opened = open_base(base, ("vae",), vae=vae, device=device or str(PartialState().device), config=base_config)
    if opened.spec is not None:
        require_equal(opened.spec, dataset.spec, base, str(folder))
    name, items = choose_clips(dataset, split, count, seed)
    clips = measure_clips(opened.vae, dataset, items, batch_pixels)
    ranks = sorted({*evenly(len(clips), inverted), *extremes(len(clips))})
    shown = track(ranks, len(ranks), "to sound", "clips")
    sounds = {rank: _sounds(clips[rank], dataset.spec, method, seed) for rank in shown}
    inputs = opened.identity | {"pictures": pairs_hash((item.file, sha256_file(dataset.path(item))) for item in items)}
    return VaeAudit(summarise(clips, sounds, inverted, dataset.spec, name), clips, sounds, dataset.spec, inputs)


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
    )


def _sounds(clip: Clip, spec: MelSpec, method: Method, seed: int) -> Sounds:
    without, with_vae = (invert(values, spec, method, seed) for values in (clip.before, clip.after))
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


def write_audit(folder: Path, audit: VaeAudit, record: Record, *, base: str, vae: str | None) -> Path:
    """Write report.html and audit.json; returns the path of the page. `base` and `vae` are shown as names."""
    path = folder / "report.html"
    audit_page(audit, base=base, vae=vae).write(path)
    content = audit.figures.model_dump(mode="json") | {"record": record.model_dump(mode="json")}
    write_json(folder / "audit.json", content)
    return path


def audit_page(audit: VaeAudit, *, base: str, vae: str | None) -> Page:
    """Return the page; `base` and `vae` are their names."""
    figures, clips = audit.figures, audit.clips
    name = f"the VAE {vae}" if vae else f"the VAE of {base}"
    page = Page(
        f"What {name} costs",
        f"{len(clips)} clips ({figures.split}) were encoded and decoded again. No picture that is generated with this "
        "VAE, and no LoRA trained through it, can be better than this.",
    )
    page.section("Figures", _figures(figures), paragraph(DEFINITIONS))
    rows = [
        (f"{band.low_hz:.0f} to {band.high_hz:.0f}", f"{band.error_db:.2f}", f"{band.change_db:+.2f}")
        for band in figures.bands
    ]
    bands = table(["Hz", "mean absolute error, dB", "mean change, dB"], rows)
    page.section("By band", svg(_band_figure(figures), "mean absolute error and mean change of level"), bands)
    ranks = sorted(audit.sounds)
    worst = [rank for rank in reversed(ranks) if rank >= len(clips) - EXTREMES]
    best = [rank for rank in ranks if rank < EXTREMES and rank not in worst]
    for title, chosen in (("Worst clips", worst), ("Best clips", best)):
        blocks = [_clip(clips[rank], audit.sounds[rank], audit.spec) for rank in chosen]
        if blocks:
            page.section(title, gallery(blocks))
    rows = [(clip.source, f"{clip.psnr_db:.1f}", f"{clip.mel_error_db:.2f}") for clip in figures.clips]
    page.section("All clips", table(["clip", "PSNR dB", "mel error dB"], rows))
    return page


def _figures(figures: AuditFigures) -> Markup:
    psnr = [clip.psnr_db for clip in figures.clips]
    error = [clip.mel_error_db for clip in figures.clips]
    rows = [
        ("PSNR of the picture, dB", figures.psnr_db, float(np.median(psnr)), min(psnr)),
        ("mel error, dB", figures.mel_error_db, float(np.median(error)), max(error)),
    ]
    for which in ("without", "with"):
        name = f"convergence_{which}_db"
        found = [value for clip in figures.clips if (value := getattr(clip, name)) is not None]
        label = f"mel convergence {which} the VAE, dB"
        rows.append((label, getattr(figures, name), float(np.median(found)), max(found)))
    return table(["", "over all", "median clip", "worst clip"], rows)


def _band_figure(figures: AuditFigures) -> Figure:
    figure = Figure(figsize=(7.0, 2.8))
    axes = figure.subplots()
    places = np.arange(len(figures.bands))
    axes.bar(places, [band.error_db for band in figures.bands], color="tab:blue", label="error")
    axes.plot(places, [band.change_db for band in figures.bands], color="tab:orange", marker="o", label="change")
    axes.axhline(0.0, color="#000000", linewidth=0.5)
    axes.set_xticks(places, [f"{band.low_hz:.0f}-{band.high_hz:.0f}" for band in figures.bands], fontsize=7)
    axes.set(xlabel="Hz", ylabel="dB")
    axes.legend(frameon=False)
    return figure


def _clip(clip: Clip, sounds: Sounds, spec: MelSpec) -> Markup:
    """Return a player that switches between the clip before and after the VAE."""
    pictures = (("before", clip.before, sounds.without), ("after the VAE", clip.after, sounds.with_vae))
    caption = (
        f"{clip.source}: mel error {clip.mel_error_db:.2f} dB; mel convergence {sounds.convergence_without_db:.1f} dB "
        f"before, {sounds.convergence_with_db:.1f} dB after"
    )
    heard = [Sound(sound_bytes(sound, spec.sample_rate), _png(values, spec), name) for name, values, sound in pictures]
    return player(*heard, caption=caption)


def _png(values: Float, spec: MelSpec) -> bytes:
    return encode_png(Spectrogram(quantise(values), spec))

"""The report of a VAE audit: figures, the error by band, and the best and worst clips with their sounds."""

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from sdxl_mel.arrays import Float
from sdxl_mel.evaluation.vae_audit import EXTREMES, AuditFigures, Clip, Sounds, VaeAudit
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.metrics.picture_fidelity import FLOOR_DB
from sdxl_mel.record import Record
from sdxl_mel.report.page import Page, gallery, paragraph, picture, player, sound_bytes, svg, table
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise


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
    page.section("Figures", _figures(figures), paragraph(_definitions()))
    page.section("By band", svg(_band_figure(figures), "mean absolute error and mean change of level"), _bands(figures))
    ranks = sorted(audit.sounds)
    worst = [rank for rank in reversed(ranks) if rank >= len(clips) - EXTREMES]
    best = [rank for rank in ranks if rank < EXTREMES and rank not in worst]
    for title, chosen in (("Worst clips", worst), ("Best clips", best)):
        blocks = [block for rank in chosen for block in _clip(clips[rank], audit.sounds[rank], audit.spec)]
        if blocks:
            page.section(title, gallery(blocks))
    page.section("All clips", table(["clip", "PSNR dB", "mel error dB"], _rows(figures)))
    return page


def _figures(figures: AuditFigures) -> Markup:
    psnr = [clip.psnr_db for clip in figures.clips]
    error = [clip.mel_error_db for clip in figures.clips]
    rows = [
        ("PSNR of the picture, dB", figures.psnr_db, float(np.median(psnr)), min(psnr)),
        ("mel error, dB", figures.mel_error_db, float(np.median(error)), max(error)),
    ]
    sounds = [
        ("mel convergence without the VAE, dB", figures.convergence_without_db, "convergence_without_db"),
        ("mel convergence with the VAE, dB", figures.convergence_with_db, "convergence_with_db"),
    ]
    for label, mean, attribute in sounds:
        found = [value for clip in figures.clips if (value := getattr(clip, attribute)) is not None]
        rows.append((label, mean, float(np.median(found)), max(found)))
    return table(["", "over all", "median clip", "worst clip"], rows)


def _definitions() -> str:
    return (
        "PSNR: 8-bit values as 0..1, mean square over all clips. Mel error: mean absolute difference of all pixels in "
        f"dB, both pictures cut off {FLOOR_DB:.0f} dB under the loudest pixel. Mel convergence: the picture is turned "
        "into sound, the sound into a mel spectrogram M' again; 20 log10(|M - M'| / |M|), M being that of the picture "
        "before the VAE, so the difference of the two lines is what the VAE costs the sound; lower is better."
    )


def _bands(figures: AuditFigures) -> Markup:
    rows = [
        (f"{band.low_hz:.0f} to {band.high_hz:.0f}", f"{band.error_db:.2f}", f"{band.change_db:+.2f}")
        for band in figures.bands
    ]
    return table(["Hz", "mean absolute error, dB", "mean change, dB"], rows)


def _band_figure(figures: AuditFigures) -> Figure:
    figure = Figure(figsize=(7.0, 2.8))
    axes = figure.subplots()
    places = np.arange(len(figures.bands))
    axes.bar(places, [band.error_db for band in figures.bands], color="tab:blue", label="error")
    axes.plot(places, [band.change_db for band in figures.bands], color="tab:orange", marker="o", label="change")
    axes.axhline(0.0, color="#000000", linewidth=0.5)
    axes.set_xticks(places, [f"{band.low_hz:.0f}-{band.high_hz:.0f}" for band in figures.bands], fontsize=7)
    axes.set_xlabel("Hz")
    axes.set_ylabel("dB")
    axes.legend(frameon=False)
    return figure


def _clip(clip: Clip, sounds: Sounds, spec: MelSpec) -> list[Markup]:
    error = f"mel error {clip.mel_error_db:.2f} dB"
    return [
        Markup("{}{}").format(
            picture(_png(clip.before, spec), f"{clip.source}, before"),
            player(sound_bytes(sounds.without, spec.sample_rate), f"{sounds.convergence_without_db:.1f} dB"),
        ),
        Markup("{}{}").format(
            picture(_png(clip.after, spec), f"after the VAE, {error}"),
            player(sound_bytes(sounds.with_vae, spec.sample_rate), f"{sounds.convergence_with_db:.1f} dB"),
        ),
    ]


def _png(values: Float, spec: MelSpec) -> bytes:
    return encode_png(Spectrogram(quantise(values), spec))


def _rows(figures: AuditFigures) -> list[tuple[str, str, str]]:
    return [(clip.source, f"{clip.psnr_db:.1f}", f"{clip.mel_error_db:.2f}") for clip in figures.clips]

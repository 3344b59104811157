"""The report of an audit: figures, the error by band, and the best and worst clips to see and hear."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from sdxl_mel.arrays import Float
from sdxl_mel.evaluation.vae_audit import EXTREMES, Clip, Heard
from sdxl_mel.evaluation.vae_audit_report import Report
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.metrics.picture_fidelity import FLOOR_DB
from sdxl_mel.report.page import Page, gallery, paragraph, picture, player, sound_bytes, svg, table
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise


def audit_page(
    report: Report, clips: Sequence[Clip], heard: dict[int, Heard], spec: MelSpec, *, base: str, vae: str | None
) -> Page:
    """Return the page; `clips` are ordered from best to worst and `heard` is keyed by that rank."""
    name = f"the VAE {vae}" if vae else f"the VAE of {base}"
    page = Page(
        f"What {name} costs",
        f"{len(clips)} clips ({report.split}) were encoded and decoded again. No picture that is generated with this "
        "VAE, and no LoRA trained through it, can be better than this.",
    )
    page.section("Figures", _figures(report), paragraph(_definitions()))
    page.section("By band", svg(_band_figure(report), "mean absolute error and mean change of level"), _bands(report))
    ranks = sorted(heard)
    worst = [rank for rank in reversed(ranks) if rank >= len(clips) - EXTREMES]
    best = [rank for rank in ranks if rank < EXTREMES and rank not in worst]
    for title, chosen in (("Worst clips", worst), ("Best clips", best)):
        blocks = [block for rank in chosen for block in _clip(clips[rank], heard[rank], spec)]
        if blocks:
            page.section(title, gallery(blocks))
    page.section("All clips", table(["clip", "PSNR dB", "mel error dB"], _rows(report)))
    return page


def _figures(report: Report) -> Markup:
    psnr = [clip.psnr_db for clip in report.clips]
    error = [clip.mel_error_db for clip in report.clips]
    rows = [
        ("PSNR of the picture, dB", report.psnr_db, float(np.median(psnr)), min(psnr)),
        ("mel error, dB", report.mel_error_db, float(np.median(error)), max(error)),
    ]
    sounds = [
        ("mel convergence without the VAE, dB", report.convergence_without_db, "convergence_without_db"),
        ("mel convergence with the VAE, dB", report.convergence_with_db, "convergence_with_db"),
    ]
    for label, mean, attribute in sounds:
        found = [value for clip in report.clips if (value := getattr(clip, attribute)) is not None]
        rows.append((label, mean, float(np.median(found)), max(found)))
    return table(["", "over all", "median clip", "worst clip"], rows)


def _definitions() -> str:
    return (
        "PSNR: 8-bit values as 0..1, mean square over all clips. Mel error: mean absolute difference of all pixels in "
        f"dB, both pictures cut off {FLOOR_DB:.0f} dB under the loudest pixel. Mel convergence: the picture is turned "
        "into sound, the sound into a mel spectrogram M' again; 20 log10(|M - M'| / |M|), M being that of the picture "
        "before the VAE, so the difference of the two lines is what the VAE costs the sound; lower is better."
    )


def _bands(report: Report) -> Markup:
    rows = [
        (f"{band.low_hz:.0f} to {band.high_hz:.0f}", f"{band.error_db:.2f}", f"{band.change_db:+.2f}")
        for band in report.bands
    ]
    return table(["Hz", "mean absolute error, dB", "mean change, dB"], rows)


def _band_figure(report: Report) -> Figure:
    figure = Figure(figsize=(7.0, 2.8))
    axes = figure.subplots()
    places = np.arange(len(report.bands))
    axes.bar(places, [band.error_db for band in report.bands], color="tab:blue", label="error")
    axes.plot(places, [band.change_db for band in report.bands], color="tab:orange", marker="o", label="change")
    axes.axhline(0.0, color="#000000", linewidth=0.5)
    axes.set_xticks(places, [f"{band.low_hz:.0f}-{band.high_hz:.0f}" for band in report.bands], fontsize=7)
    axes.set_xlabel("Hz")
    axes.set_ylabel("dB")
    axes.legend(frameon=False)
    return figure


def _clip(clip: Clip, heard: Heard, spec: MelSpec) -> list[Markup]:
    error = f"mel error {clip.mel_error_db:.2f} dB"
    return [
        Markup("{}{}").format(
            picture(_png(clip.before, spec), f"{clip.source}, before"),
            player(sound_bytes(heard.without, spec.sample_rate), f"{heard.convergence_without_db:.1f} dB"),
        ),
        Markup("{}{}").format(
            picture(_png(clip.after, spec), f"after the VAE, {error}"),
            player(sound_bytes(heard.with_vae, spec.sample_rate), f"{heard.convergence_with_db:.1f} dB"),
        ),
    ]


def _png(values: Float, spec: MelSpec) -> bytes:
    return encode_png(Spectrogram(quantise(values), spec))


def _rows(report: Report) -> list[tuple[str, str, str]]:
    return [(clip.source, f"{clip.psnr_db:.1f}", f"{clip.mel_error_db:.2f}") for clip in report.clips]

"""The report of what a VAE costs, and of how it differs from another one."""

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from sdxl_mel.arrays import Float
from sdxl_mel.evaluation.vae_audit import EXTREMES, VaeAudit
from sdxl_mel.evaluation.vae_figures import AuditFigures, Distances, by_band
from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.spectrogram import Spectrogram, encode_png
from sdxl_mel.metrics.picture_fidelity import FLOOR_DB
from sdxl_mel.record import Record
from sdxl_mel.report.page import Page, Sound, gallery, paragraph, player, sound_bytes, svg, table
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import quantise

DEFINITIONS = (
    "PSNR: 8-bit values as 0..1, mean square over all clips. Mel error: mean absolute difference of all pixels in dB, "
    f"both pictures cut off {FLOOR_DB:.0f} dB under the loudest pixel. Mel convergence: the picture is turned into "
    "sound, the sound into a mel spectrogram M' again; 20 log10(|M - M'| / |M|), M being that of the picture before "
    "the VAE, so the difference of the two lines is what the VAE costs the sound; lower is better. Level bias: mean "
    "difference in dB. Texture: the energy of changes in time after the VAE against that before, by quarters of what a "
    "picture can hold, slowest changes first; that there is texture does not say that it is right."
)
FAD_MEANING = (
    "FAD: distance of the sounds after a VAE from those of the same pictures before it, 0 if nothing were lost; 95 % "
    "jackknife intervals over clips, which are left out of all sets at once. A better round trip is no evidence that "
    "what is drawn sounds better: compare that with sdxl-mel evaluate."
)


def write_audit(
    folder: Path, audit: VaeAudit, record: Record, *, base: str, vae: str | None, against: str | None = None
) -> Path:
    """Write report.html and audit.json; returns the path of the page. Base and VAEs are shown as names."""
    path = folder / "report.html"
    audit_page(audit, base=base, vae=vae, against=against).write(path)
    content = audit.figures.model_dump(mode="json") | {"record": record.model_dump(mode="json")}
    if audit.against is not None:
        content["against"] = audit.against.figures.model_dump(mode="json")
    if audit.distances is not None:
        content["distances"] = audit.distances.model_dump(mode="json")
    write_json(folder / "audit.json", content)
    return path


def audit_page(audit: VaeAudit, *, base: str, vae: str | None, against: str | None = None) -> Page:
    """Return the page; base and VAEs are shown by these names."""
    figures, clips, earlier = audit.figures, audit.clips, audit.against
    name = f"the VAE {vae}" if vae else f"the VAE of {base}"
    page = Page(
        f"What {name} costs",
        f"{len(clips)} clips ({figures.split}) were encoded and decoded again. No picture that is generated with this "
        "VAE, and no LoRA trained through it, can be better than this.",
    )
    page.section("Figures", _figures(figures), paragraph(DEFINITIONS))
    if earlier is not None:
        page.section(f"Beside the VAE of {against}", _beside(figures, earlier.figures, str(against)))
    if audit.distances is not None:
        page.section("Distance of the sounds", _distances(audit.distances, against), paragraph(FAD_MEANING))
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
        blocks = [_clip(audit, rank, against) for rank in chosen]
        if blocks:
            page.section(title, gallery(blocks))
    rows = [(clip.source, f"{clip.psnr_db:.1f}", f"{clip.mel_error_db:.2f}") for clip in figures.clips]
    page.section("All clips", table(["clip", "PSNR dB", "mel error dB"], rows))
    return page


def _figures(figures: AuditFigures) -> Markup:
    psnr = [clip.psnr_db for clip in figures.clips]
    error = [clip.mel_error_db for clip in figures.clips]
    rows: list[tuple[str, object, object, object]] = [
        ("PSNR of the picture, dB", figures.psnr_db, float(np.median(psnr)), min(psnr)),
        ("mel error, dB", figures.mel_error_db, float(np.median(error)), max(error)),
        ("level bias, dB", figures.level_bias_db, "", ""),
        ("changes in time, slow to fast, dB", by_band(figures.texture_db), "", ""),
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


def _beside(figures: AuditFigures, other: AuditFigures, name: str) -> Markup:
    rows = [
        (title, shown.format(getattr(other, field)), shown.format(getattr(figures, field)))
        for title, field, shown in (
            ("PSNR of the picture, dB", "psnr_db", "{:.2f}"),
            ("mel error, dB", "mel_error_db", "{:.2f}"),
            ("level bias, dB", "level_bias_db", "{:+.2f}"),
            ("mel convergence with the VAE, dB", "convergence_with_db", "{:.1f}"),
        )
    ]
    rows.append(("changes in time, slow to fast, dB", by_band(other.texture_db), by_band(figures.texture_db)))
    return table(["", name, "this VAE"], rows)


def _distances(found: Distances, against: str | None) -> Markup:
    rows = [("this VAE", found.fad.text())]
    if found.fad_against is not None and found.change is not None:
        rows = [(str(against), found.fad_against.text()), *rows, ("change", found.change.text())]
    return table([f"FAD of {found.embedder}", "to the sounds before the VAE"], rows)


def _clip(audit: VaeAudit, rank: int, against: str | None) -> Markup:
    """Return a player that switches between the clip before and after the VAE, or both VAEs."""
    clip, sounds, spec = audit.clips[rank], audit.sounds[rank], audit.spec
    pictures = [("before", clip.before, sounds.without), ("after the VAE", clip.after, sounds.with_vae)]
    caption = (
        f"{clip.source}: mel error {clip.mel_error_db:.2f} dB; mel convergence {sounds.convergence_without_db:.1f} dB "
        f"before, {sounds.convergence_with_db:.1f} dB after"
    )
    if audit.against is not None:
        other, heard = audit.against.clips[rank], audit.against.sounds[rank]
        pictures.insert(1, (f"after {against}", other.after, heard.with_vae))
        caption += f"; {against}: {other.mel_error_db:.2f} dB, {heard.convergence_with_db:.1f} dB"
    shown = [Sound(sound_bytes(sound, spec.sample_rate), _png(values, spec), name) for name, values, sound in pictures]
    return player(*shown, caption=caption)


def _png(values: Float, spec: MelSpec) -> bytes:
    return encode_png(Spectrogram(quantise(values), spec))

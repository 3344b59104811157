"""edit: memory by length, how the joins of regions stand out, and whether a region has the instrument it asks for."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from bench.table import Table
from sdxl_mel.arrays import Levels
from sdxl_mel.corpus.tracks import TrackPlan, plan_tracks, render_track
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.evaluation.instruments import named_instruments
from sdxl_mel.files.audio import open_audio, write_audio
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.metrics.oracle import Oracle, load_oracle
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, onset_envelope, spectral_flux
from sdxl_mel.synthesis.editing import Edit, Edited, Source, edit_source, open_source
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.regions import Region
from tests.tiny_models import write_tiny_sdxl

PIECES = 28
SECONDS = 8.192
REGION = (4.096, 6.144)
"""Half a tile, in latent columns of its own."""
EXTENDED = 2.048
STYLE_PIECES, STRENGTHS = 12, (0.3, 0.5, 0.7, 0.9)
SAMPLING = Sampling("dpmpp_2m", 10, 3.0)
MINUTES = (1, 10)
RATE = 32000
COMMAND = (
    "import resource, sys; from sdxl_mel.cli import main; code = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
)


def run() -> Table:
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*joins_on_mini(), *instruments_on_mini(), *style_on_mini(), memory(Path(folder))]
    return Table(
        title="edit: regions of given sounds, and whole songs",
        header=["what", "measured", "beside", "ratio or p"],
        rows=rows,
        notes=[
            f"{PIECES} rendered pieces of {SECONDS:g} s with one instrument. {SAMPLING.steps} steps of DPM++ 2M at "
            f"guidance {SAMPLING.guidance:g}, mini.",
            "Joins: half a tile in the middle, and two seconds at the end, drawn anew by the piece's own caption. "
            "Spectral flux across the feather, against the same anywhere in the pieces; p by Mann-Whitney, two-sided. "
            "Paste: half a tile that was drawn from the same caption without context, without a feather.",
            "Found: the half tile asks for another instrument, and the oracle names that first (half a tile twice is a "
            "tile); ceiling: the same half of a whole tile that was drawn from the prompt alone.",
            "Style: the whole piece is varied with the caption of another instrument; onsets: the correlation of the "
            "onset envelopes of both pictures.",
            "Memory: the largest resident set of `sdxl-mel edit --strength 0.5` of a stereo song at `std`, tiny SDXL.",
        ],
    )


def joins_on_mini(count: int = PIECES) -> list[list[str]]:
    """Return the rows of the joins of regions and of extensions, by the pieces' own captions."""
    generator = Generator.open("mini")
    joins: dict[str, list[float]] = {name: [] for name in ("region", "extension", "paste", "elsewhere")}
    for number, (plan, source) in enumerate(_pieces(generator, count, seed=3)):
        own, before = plan.captions[0], source.picture(0, source.frames)
        same = _edited(generator, source, Edit(regions=[Region(*REGION, prompt=own)]), number)
        first, after, feather = _frames(same)
        joins["region"] += _flux(same.levels, [first - feather, after], feather)
        pasted = before.copy()
        pasted[:, first:after] = _tile(generator, own, number)[:, : after - first]
        joins["paste"] += _flux(pasted, [first - feather // 2, after - feather // 2], feather)
        longer = _edited(generator, source, Edit(own, extend=EXTENDED), number)
        joins["extension"] += _flux(longer.levels, [_frames(longer)[0] - feather], feather)
        anywhere = numpy_generator(number, "elsewhere").choice(np.arange(32, source.frames - 32), 4, replace=False)
        joins["elsewhere"] += _flux(before, anywhere.tolist(), feather)
    joins["region and extension"] = joins["region"] + joins["extension"]
    return [
        _compared(name, joins[name], joins["elsewhere"])
        for name in ("region", "extension", "region and extension", "paste")
    ]


def instruments_on_mini(count: int = PIECES) -> list[list[str]]:
    """Return the rows of the oracle: what a region has that asks for another instrument, and what lies beside it."""
    generator, oracle = Generator.open("mini"), load_oracle()
    found: dict[str, list[bool]] = {name: [] for name in ("region", "ceiling", "beside", "before")}
    pieces = list(_pieces(generator, count, seed=3))
    plans = [plan for plan, _ in pieces]
    for number, (plan, source) in enumerate(pieces):
        own, other, before = plan.captions[0], _other(plans, number).captions[0], source.picture(0, source.frames)
        changed = _edited(generator, source, Edit(regions=[Region(*REGION, prompt=other)]), number)
        first, after, feather = _frames(changed)
        beside = slice(first - feather - (after - first), first - feather)
        for name, half, prompt in (
            ("region", changed.levels[:, first:after], other),
            ("ceiling", _tile(generator, other, number)[:, : after - first], other),
            ("beside", changed.levels[:, beside], own),
            ("before", before[:, beside], own),
        ):
            found[name].append(_finds(oracle, half, named_instruments(prompt)[0]))
    share = {name: float(np.mean(flags)) for name, flags in found.items()}
    return [
        [
            f"instrument of the region found ({count})",
            f"{share['region']:.2f}",
            f"ceiling {share['ceiling']:.2f}",
            f"{share['region'] / max(share['ceiling'], 1e-9):.2f}",
        ],
        ["own instrument beside the region", f"{share['beside']:.2f}", f"before {share['before']:.2f}", ""],
    ]


def _pieces(generator: Generator, count: int, seed: int) -> Iterator[tuple[TrackPlan, Source]]:
    """Yield rendered pieces of one instrument each, and the sources that they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.wav"
        for plan in plan_tracks("test-seen", count, SECONDS, solo_share=1.0, seed=seed):
            write_audio(path, *render_track(plan))
            yield plan, open_source(path, generator.spec)


def _edited(generator: Generator, source: Source, edit: Edit, seed: int) -> Edited:
    return edit_source(generator, source, edit, sampling=SAMPLING, seed=seed)


def _frames(edited: Edited) -> tuple[int, int, int]:
    """Return the first frame of the first passage, the one after its last, and the frames of its feather."""
    patch = edited.plan.passages[0].patch
    return patch.first * LATENT_FACTOR, patch.after * LATENT_FACTOR, patch.feather * LATENT_FACTOR


def style_on_mini(count: int = STYLE_PIECES) -> list[list[str]]:
    """Return a row a strength: what stays of a piece that is asked for in the words of another."""
    generator, oracle = Generator.open("mini"), load_oracle()
    pieces = list(_pieces(generator, count, seed=4))
    found: dict[float, list[bool]] = {strength: [] for strength in STRENGTHS}
    onsets: dict[float, list[float]] = {strength: [] for strength in STRENGTHS}
    for number, (_, source) in enumerate(pieces):
        before = onset_envelope(dequantise(source.picture(0, source.frames)))
        prompt = _other([plan for plan, _ in pieces], number).captions[0]
        for strength in STRENGTHS:
            varied = _edited(generator, source, Edit(prompt, strength), number).levels
            found[strength] += oracle.found(varied[None, :, : generator.spec.width, 0], [named_instruments(prompt)])[0]
            onsets[strength].append(float(np.corrcoef(before, onset_envelope(dequantise(varied)))[0, 1]))
    return [
        [
            f"style, strength {strength:g}",
            f"instrument asked for {np.mean(found[strength]):.2f}",
            f"onsets {np.mean(onsets[strength]):.2f}",
            "",
        ]
        for strength in STRENGTHS
    ]


def _other(plans: Sequence[TrackPlan], number: int) -> TrackPlan:
    """Return the next piece that has another instrument."""
    own = plans[number].instruments
    return next(plan for plan in [*plans[number:], *plans[:number]] if plan.instruments != own)


def _tile(generator: Generator, prompt: str, seed: int) -> Levels:
    prompts = Prompts([PromptLine(prompt=prompt)], seed=seed)
    jobs = plan_jobs(prompts, generator.fitting(long=True), generator.spec.tile_seconds, long=False)
    return next(generator.draw(jobs, SAMPLING)).levels


def _finds(oracle: Oracle, half: Levels, wanted: str) -> bool:
    tile = np.concatenate([half, half], axis=1)[None, ..., 0]
    return oracle.found(tile, [[wanted]])[0][0]


def _flux(levels: Levels, starts: Sequence[int], gap: int) -> list[float]:
    """Return the flux across some gaps, as deviations from that across all of the picture."""
    context = context_frames(PRESETS["mini"].sample_rate / PRESETS["mini"].hop_length)
    flux = spectral_flux(dequantise(levels), gap, context)
    return [float((flux[start - context] - flux.mean()) / flux.std()) for start in starts]


def _compared(what: str, ours: list[float], others: list[float]) -> list[str]:
    p = float(mannwhitneyu(ours, others).pvalue)
    return [
        f"joins, {what} ({len(ours)})",
        f"z {np.mean(ours):+.2f}",
        f"elsewhere {np.mean(others):+.2f}",
        f"p {p:.2g}",
    ]


def memory(folder: Path) -> list[str]:
    """Return the row of memory by length."""
    base, peaks = write_tiny_sdxl(folder / "tiny", slim=True), []
    for minutes in MINUTES:
        song = folder / f"{minutes}.flac"
        with open_audio(song, RATE, 2) as writer:
            for second in range(60 * minutes):
                noise = numpy_generator(second, "song").standard_normal((2, RATE)).astype(np.float32)
                writer.write(0.05 * noise * np.linspace(1, 0, RATE, dtype=np.float32))
        words = ["edit", str(song), "--base", str(base), "--preset", "std", "--prompt", "piano", "--strength", "0.5"]
        words += ["--steps", "2", "--guidance", "1", "--method", "fast", "--out", str(folder / f"{minutes}.wav")]
        done = subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    return [
        f"memory of {MINUTES[1]} minutes and of {MINUTES[0]}",
        f"{peaks[1]:.0f} MiB",
        f"{peaks[0]:.0f} MiB",
        f"{peaks[1] / peaks[0]:.2f}",
    ]

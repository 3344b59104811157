"""edit: memory by length, how the joins of regions stand out, and whether a region has the instrument it asks for."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from bench.table import Table
from sdxl_mel.arrays import Levels
from sdxl_mel.corpus.tracks import plan_tracks, render_track
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.evaluation.instruments import named_instruments
from sdxl_mel.files.audio import open_audio, write_audio
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.metrics.oracle import Oracle, load_oracle
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, spectral_flux
from sdxl_mel.synthesis.editing import Edit, edit_source, open_source
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.regions import Region
from tests.tiny_models import write_tiny_sdxl

PIECES = 45
SECONDS = 10.0
REGION = (4.096, 6.144)
"""Half a tile, in latent columns of its own."""
SAMPLING = Sampling("dpmpp_2m", 15, 3.0)
MINUTES = (1, 10)
RATE = 32000
COMMAND = (
    "import resource, sys; from sdxl_mel.cli import main; code = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
)


def run() -> Table:
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*regions_on_mini(), memory(Path(folder))]
    return Table(
        title="edit: regions of given sounds, and whole songs",
        header=["what", "measured", "beside", "ratio or p"],
        rows=rows,
        notes=[
            f"{PIECES} rendered pieces of {SECONDS:g} s with one instrument each; half a tile in their middle asks for "
            f"another one. {SAMPLING.steps} steps of DPM++ 2M at guidance {SAMPLING.guidance:g}, mini.",
            "Joins: spectral flux across the feather of both borders, against the same at other places of the pieces; "
            "p by Mann and Whitney, two-sided. Pasted: the same half tile out of a tile of its own, without a feather.",
            "Found: the oracle's first choice for the half tile, repeated to fill a tile; ceiling: the same half of a "
            "whole tile that was drawn from the prompt alone.",
            "Memory: the largest resident set of `sdxl-mel edit --strength 0.5` of a stereo song at `std`, tiny SDXL.",
        ],
    )


def regions_on_mini(count: int = PIECES) -> list[list[str]]:
    """Return the rows of the oracle and of the joins."""
    generator, oracle = Generator.open("mini"), load_oracle()
    spec, context = generator.spec, context_frames(generator.spec.sample_rate / generator.spec.hop_length)
    plans = plan_tracks("test-seen", count, SECONDS, solo_share=1.0, seed=3)
    joins: dict[str, list[float]] = {"edited": [], "pasted": [], "elsewhere": []}
    found, ceiling, own, own_before = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, plan in enumerate(plans):
            path = Path(folder) / f"{number}.wav"
            write_audio(path, *render_track(plan))
            source = open_source(path, spec)
            other = plans[(number + 1) % count]
            while other.instruments == plan.instruments:
                other = plans[(plans.index(other) + 1) % count]
            prompt = other.captions[0]
            edit = Edit(regions=[Region(*REGION, prompt=prompt)])
            edited = edit_source(generator, source, edit, sampling=SAMPLING, seed=number)
            alone = _tile(generator, prompt, number)
            patch = edited.plan.parts[0].patch
            first, after = patch.first * LATENT_FACTOR, patch.after * LATENT_FACTOR
            half = slice(first, after)
            before = source.picture(0, edited.levels.shape[1])
            pasted = before.copy()
            pasted[:, half] = alone[:, : after - first]
            wanted = named_instruments(prompt)[0]
            found.append(_finds(oracle, edited.levels[:, half], wanted))
            ceiling.append(_finds(oracle, alone[:, : after - first], wanted))
            mine = named_instruments(plan.captions[0])[0]
            left = slice(first - 128 - LATENT_FACTOR, first - LATENT_FACTOR)
            own.append(_finds(oracle, edited.levels[:, left], mine))
            own_before.append(_finds(oracle, before[:, left], mine))
            width = patch.feather * LATENT_FACTOR
            places = [first - width, after]
            elsewhere = numpy_generator(number, "elsewhere").choice(np.arange(32, first - 64), 4, replace=False)
            for name, levels, at in (
                ("edited", edited.levels, places),
                ("pasted", pasted, [first - width // 2, after - width // 2]),
                ("elsewhere", before, elsewhere.tolist()),
            ):
                joins[name] += _flux(levels, at, width, context)
    return [
        _compared("joins of regions", joins["edited"], joins["elsewhere"]),
        _compared("joins of an unfeathered paste", joins["pasted"], joins["elsewhere"]),
        [
            "instrument of the region found",
            f"{np.mean(found):.2f}",
            f"ceiling {np.mean(ceiling):.2f}",
            f"{np.mean(found) / max(np.mean(ceiling), 1e-9):.2f}",
        ],
        ["own instrument found beside the region", f"{np.mean(own):.2f}", f"before {np.mean(own_before):.2f}", ""],
    ]


def _tile(generator: Generator, prompt: str, seed: int) -> Levels:
    prompts = Prompts([PromptLine(prompt=prompt)], seed=seed)
    jobs = plan_jobs(prompts, generator.fitting(long=True), generator.spec.tile_seconds, long=False)
    return next(generator.draw(jobs, SAMPLING)).levels


def _finds(oracle: Oracle, half: Levels, wanted: str) -> bool:
    tile = np.concatenate([half, half], axis=1)[None, ..., 0]
    return oracle.found(tile, [[wanted]])[0][0]


def _flux(levels: Levels, starts: list[int], gap: int, context: int) -> list[float]:
    """Return the flux across some gaps, as deviations from that across all of the picture."""
    flux = spectral_flux(dequantise(levels), gap, context)
    return [float((flux[start - context] - flux.mean()) / flux.std()) for start in starts]


def _compared(what: str, ours: list[float], others: list[float]) -> list[str]:
    p = float(mannwhitneyu(ours, others).pvalue)
    return [f"{what} ({len(ours)})", f"z {np.mean(ours):+.2f}", f"elsewhere {np.mean(others):+.2f}", f"p {p:.2g}"]


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

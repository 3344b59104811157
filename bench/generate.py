"""generate beside the plain diffusers pipeline: speed, the same latents, memory by length, and how joins stand out."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from bench.table import Table
from sdxl_mel.diffusion.sampling import draw_noise, make_scheduler
from sdxl_mel.files.prompts import PromptLine
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, seam_scores
from sdxl_mel.stages import generate
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Prompts, plan_jobs
from sdxl_mel.synthesis.results import Step
from tests.stages.junction import junction_of_sound

Values = NDArray[np.float32]

PROMPTS = ("violin ballad with soft piano", "folk, flute and guitar, fast", "chorale, organ and trumpet")
STEPS = 20
ROUNDS = 5
LONG_STEPS = 10
JOINS = 20
LOOPS = 12


def run(base_name: str = "mini") -> Table:
    """Measure all rows on one base."""
    base = open_base(base_name)
    assert base.spec is not None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = [
            *_speed(base),
            _memory(base_name, place),
            *_joins(base_name, base.spec, place),
            _loops(base_name, base.spec, place),
        ]
    return Table(
        title="generate: beside the plain diffusers pipeline, and in length",
        header=["what", "ours", "beside", "ratio or p"],
        rows=rows,
        notes=[
            f"Base {base_name} at its own guidance. One tile: {STEPS} steps of Euler, text to picture, the fastest of "
            f"{ROUNDS} rounds in turn.",
            f"Seam z: spectral flux across a join beside the same across all other stretches; mean of {len(PROMPTS)} "
            f"pieces of {JOINS} joins, a quarter of a tile shared, {LONG_STEPS} steps of DPM++ 2M. p: two-sided t-test "
            "of the mean against 0.",
            f"Loops: {LOOPS} tiles, the junction in the picture of the sound file played three times.",
        ],
    )


def _speed(base: Base) -> list[list[str]]:
    assert base.spec is not None
    spec, generator = base.spec, Generator(base)
    sampling = replace(generator.settle().sampling, steps=STEPS)
    jobs = plan_jobs(Prompts([PromptLine(prompt=PROMPTS[0])]), generator.fitting(), spec.tile_seconds, long=False)
    height, width = spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR
    pipeline = StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        text_encoder_2=base.text_encoder_2,
        tokenizer=base.tokenizer,
        tokenizer_2=base.tokenizer_2,
        unet=base.unet,
        scheduler=make_scheduler("euler", base.scheduler),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = draw_noise([0], (4, height, width), "cpu")

    def plain(output: str) -> torch.Tensor:
        return pipeline(
            prompt=jobs[0].texts[0].text,
            negative_prompt="",
            height=spec.n_mels,
            width=spec.width,
            num_inference_steps=STEPS,
            guidance_scale=sampling.guidance,
            latents=noise.clone(),
            output_type=output,
        ).images

    def ours() -> torch.Tensor:
        steps: list[Step] = []
        generator.texts.clear()
        list(generator.draw(jobs, sampling, on_step=steps.append))
        return steps[-1].latents

    difference = float((ours() - plain("latent")).abs().max())
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        times["ours"].append(_seconds(ours))
        times["plain"].append(_seconds(lambda: plain("np")))
    rows = []
    for index, clock in enumerate(("wall", "CPU")):
        best = {who: min(pair[index] for pair in taken) for who, taken in times.items()}
        ratio = f"{best['ours'] / best['plain']:.3f}"
        rows.append([f"one tile, {clock} seconds", f"{best['ours']:.3f}", f"plain pipeline {best['plain']:.3f}", ratio])
    return [*rows, ["largest difference of the latents", f"{difference:.1e}", "plain pipeline", ""]]


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and the CPU seconds that the work takes."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def _memory(base: str, folder: Path) -> list[str]:
    peaks = {seconds: _peak_bytes(base, folder / str(seconds), seconds) for seconds in (10, 60)}
    megabytes = {seconds: f"{peak / 1e6:.0f}" for seconds, peak in peaks.items()}
    return [
        "peak memory of 60 s with its sound, MB",
        megabytes[60],
        f"10 s: {megabytes[10]}",
        f"{peaks[60] / peaks[10]:.3f}",
    ]


def _peak_bytes(base: str, folder: Path, seconds: int) -> int:
    words = ["generate", "--base", base, "--prompt", PROMPTS[0], "--seconds", str(seconds), "--out", str(folder)]
    program = (
        "import resource, sys; from sdxl_mel.cli import main\n"
        f"code = main({[*words, '--steps', '2', '--method', 'fast', '--quiet']!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


def _joins(base: str, spec: MelSpec, folder: Path) -> list[list[str]]:
    ways = [("joint", "swap"), ("joint", "average"), ("joint", "roll"), ("extend", "swap"), ("independent", "swap")]
    return [_join_row(base, spec, folder, mode, merge) for mode, merge in ways]


def _join_row(base: str, spec: MelSpec, folder: Path, mode: str, merge: str) -> list[str]:
    """Generate long pieces at a common overlap and score their joins."""
    overlap = spec.width // 4
    stride = spec.width - overlap
    seconds = (JOINS * stride + spec.width) * spec.hop_length / spec.sample_rate
    starts = [join * stride for join in range(1, JOINS + 1)]
    context = context_frames(spec.sample_rate / spec.hop_length)
    scores: list[float] = []
    for prompt in PROMPTS:
        out = folder / f"{mode}-{merge}-{prompt}"
        values = _drawn(base, out, prompt, seconds=seconds, mode=mode, merge=merge, overlap="25%")
        scores += seam_scores(values, starts, [overlap] * JOINS, context)
    return [
        f"seam z, {mode}" + (f" by {merge}" if mode == "joint" else ""),
        f"{np.mean(scores):+.2f}",
        f"|z| over 2: {np.mean(np.abs(scores) > 2):.0%}",
        f"p = {ttest_1samp(scores, 0).pvalue:.2g}",
    ]


def _drawn(base: str, out: Path, prompt: str, **settings: object) -> Values:
    fixed = {"sampler": "dpmpp_2m", "steps": LONG_STEPS, "format": "none"}
    config = {"base": base, "prompt": prompt, "out": out} | fixed | settings
    generate.run(generate.Config.model_validate(config))
    return dequantise(read_spectrogram(out / "0001.png").levels)


def _loops(base: str, spec: MelSpec, folder: Path) -> list[str]:
    scores: dict[bool, list[float]] = {}
    for loop in (True, False):
        out = folder / f"loop-{loop}"
        _drawn(base, out, PROMPTS[0], num=LOOPS, loop=loop, format="wav", method="fast")
        scores[loop] = [junction_of_sound(file, spec.width, spec) for file in sorted(out.glob("*.wav"))]
    return [
        "flux z from the end to the start of a loop's sound",
        f"{np.mean(scores[True]):+.2f}",
        f"worst {max(scores[True]):+.2f}; without --loop {np.mean(scores[False]):+.2f}",
        "",
    ]

"""generate beside the plain diffusers pipeline: speed, the same latents, memory by length, and how joins stand out."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from scipy.stats import mannwhitneyu

from bench.table import Table
from sdxl_mel.diffusion.conditioning import encode_prompts, time_ids
from sdxl_mel.diffusion.decoding import decode_latents
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, draw_noise, sample
from sdxl_mel.diffusion.schedulers import make_scheduler
from sdxl_mel.files.base import Base, open_base
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import context_frames, junction_score, seam_scores, stretch_scores
from sdxl_mel.stages import generate

PROMPT = "violin ballad with soft piano"
STEPS = 20
ROUNDS = 5
JOINS = 20


def run(base_name: str = "mini") -> Table:
    """Measure all rows on one base."""
    base = open_base(base_name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = [*_speed(base, base_name), _memory(base_name, place), *_joins(base_name, place), _loop(base_name, place)]
    return Table(
        title="generate: beside the plain diffusers pipeline, and in length",
        header=["what", "ours", "beside", "ratio or p"],
        rows=rows,
        notes=[
            f"Base {base_name}, {STEPS} steps, Euler, guidance 5; CPU times, the best of {ROUNDS} rounds in turn.",
            f"Seam z: spectral flux across a join beside the same across all other stretches, mean of {JOINS} joins; "
            "p: one-sided Mann-Whitney test that the music changes no more at joins than elsewhere.",
        ],
    )


def _speed(base: Base, name: str) -> list[list[str]]:
    assert base.spec is not None
    spec = base.spec
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
            prompt=PROMPT,
            negative_prompt="",
            height=spec.n_mels,
            width=spec.width,
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            latents=noise.clone(),
            output_type=output,
        ).images

    def ours() -> torch.Tensor:
        with torch.inference_mode():
            text, none = encode_prompts(base, [PROMPT]), encode_prompts(base, [""])
        told = Denoiser(base.unet, time_ids(spec.n_mels, spec.width), none, Guidance(5.0))
        scheduler = make_scheduler("euler", base.scheduler)
        return sample(scheduler, STEPS, noise, lambda x, t, _: told.predict(x, t, text), seeds=[0])

    difference = float((ours() - plain("latent")).abs().max())
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        times["ours"].append(_seconds(lambda: decode_latents(base.vae, ours(), spec)))
        times["plain"].append(_seconds(lambda: plain("np")))
    best = {who: min(taken) for who, taken in times.items()}
    return [
        [
            f"one tile of {name}, CPU s",
            f"{best['ours']:.3f}",
            f"plain pipeline {best['plain']:.3f}",
            f"{best['ours'] / best['plain']:.3f}",
        ],
        ["largest difference of the latents", f"{difference:.1e}", "plain pipeline", ""],
    ]


def _seconds(work) -> float:  # noqa: ANN001
    # CPU time: on a shared machine the wall clock says more about the neighbours.
    start = time.process_time()
    work()
    return time.process_time() - start


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
    words = ["generate", "--base", base, "--prompt", PROMPT, "--seconds", str(seconds), "--out", str(folder)]
    program = (
        "import resource, sys; from sdxl_mel.cli import main\n"
        f"code = main({[*words, '--steps', '2', '--method', 'fast', '--quiet']!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


def _joins(base: str, folder: Path) -> list[list[str]]:
    ways = [("joint", "swap"), ("joint", "average"), ("joint", "roll"), ("extend", "swap"), ("independent", "swap")]
    return [_join_row(base, folder, mode, merge) for mode, merge in ways]


def _join_row(base: str, folder: Path, mode: str, merge: str) -> list[str]:
    """Generate one long piece at a common overlap and score its joins."""
    spec = open_base(base, parts=()).spec
    assert spec is not None
    stride = spec.width // 2
    seconds = (JOINS * stride + spec.width) * spec.hop_length / spec.sample_rate
    out = folder / f"{mode}-{merge}"
    generate.run(
        generate.Config.model_validate(
            {
                "base": base,
                "prompt": PROMPT,
                "seconds": seconds,
                "mode": mode,
                "merge": merge,
                "overlap": "50%",
                "steps": STEPS,
                "format": "none",
                "out": out,
            }
        )
    )
    values = dequantise(read_spectrogram(out / "0001.png").levels)
    starts = [join * stride for join in range(1, JOINS + 1)]
    overlaps = [spec.width - stride] * JOINS
    context = context_frames(spec.sample_rate / spec.hop_length)
    scores = np.array(seam_scores(values, starts, overlaps, context))
    others = stretch_scores(values, starts, overlaps[0], context)
    # One-sided: a join stands out where the music changes more than elsewhere.
    p = mannwhitneyu(scores, others, alternative="greater").pvalue
    return [
        f"seam z, {mode}" + (f" by {merge}" if mode == "joint" else ""),
        f"{scores.mean():+.2f}",
        f"|z| over 2: {(np.abs(scores) > 2).mean():.0%}",
        f"p = {p:.2f}",
    ]


def _loop(base: str, folder: Path) -> list[str]:
    scores = []
    for loop in (True, False):
        out = folder / f"loop-{loop}"
        settings = {"base": base, "prompt": PROMPT, "steps": STEPS, "format": "none", "loop": loop, "out": out}
        generate.run(generate.Config.model_validate(settings))
        scores.append(junction_score(dequantise(read_spectrogram(out / "0001.png").levels)))
    return ["flux z from the end to the start of a loop", f"{scores[0]:+.2f}", f"no loop: {scores[1]:+.2f}", ""]

"""The whole recipe, part by part; each part is skipped where its result lies there already."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from sdxl_mel.files.atomic import atomic_folder, write_text
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.progress import log
from tools.mini_base.data import renders
from tools.mini_base.judge import fit_on_round_trips, judge, judge_data
from tools.mini_base.oracle import save_oracle
from tools.mini_base.training import Schedule
from tools.mini_base.unet import train_unet, write_pipeline
from tools.mini_base.vae import train_vae

Recipe = dict[str, Any]
VALIDATION_TRACKS = 256
VAE_TILES = 48


def train_folder(work: Path, recipe: Recipe, threads: int) -> Path:
    """Train what is missing and return the folder of the finished pipeline."""
    torch.set_num_threads(1)
    finished = work / "mini"
    if finished.exists():
        return finished
    data = work / "renders"
    data.mkdir(parents=True, exist_ok=True)
    tracks = renders(data, "train", recipe["tracks"], workers=threads)
    held_out = renders(data, "validation", VALIDATION_TRACKS, workers=threads)
    if not (work / "vae").exists():
        schedule, batch = _schedule(recipe["vae"], threads)
        vae = train_vae(tracks.pictures, held_out.tiles()[:VAE_TILES], schedule, batch, work / "vae.safetensors")
        with atomic_folder(work / "vae") as temporary:
            vae.save_pretrained(temporary)
    vae = AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last)
    schedule, batch = _schedule(recipe["unet"], threads)
    network = train_unet(
        vae,
        tracks,
        held_out,
        schedule=schedule,
        batch=batch,
        checkpoint=work / "unet.safetensors",
        interim=work / "interim",
    )
    write_pipeline(finished, vae, network, recipe["guidance"])
    return finished


def judge_folder(folder: Path, work: Path, recipe: Recipe, threads: int) -> None:
    """Print the figures of a pipeline and write them to judged.md; the oracle is fitted first if it is missing."""
    torch.set_num_threads(threads)
    data = judge_data(work / "renders", recipe["tracks"], threads)
    kept = work / "oracle.safetensors"
    if not kept.exists():
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", dtype=torch.float32)
        save_oracle(kept, fit_on_round_trips(data, vae, work))
    lines = judge(folder, data, work, load_oracle(kept), prompts=recipe["prompts"], guidance=recipe["guidance"])
    table = "".join(f"| {what} | {figure} |\n" for what, figure in lines)
    write_text(work / "judged.md", f"| | |\n|---|---|\n{table}")
    log(table)


def _schedule(part: Recipe, threads: int) -> tuple[Schedule, int]:
    values = {name: value for name, value in part.items() if name != "batch"}
    return Schedule(threads=threads, **values), part["batch"]

"""Fusing a LoRA into a checkpoint of SDXL's true size, beside copying the file and beside diffusers.

The checkpoint is made on the spot from random numbers (6.9 GB in fp16) and deleted afterwards; 30 GB of disk do.
"""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.table import Table
from sdxl_mel.files.tensors import TensorType
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.checkpoint_writer import write_single_file
from sdxl_mel.models.family import ADAPTABLE, Part
from sdxl_mel.models.layouts import Architecture, Param
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.sound.melspec import PRESETS
from tests.loras import linear_paths, meta_sdxl_unet
from tests.tiny_models import write_tiny_sdxl

RANK = 32
REPEATS = 3
PAUSE = 8
"""Seconds before each run. A virtual machine gives freed memory back to its host after about two, and getting it again
costs whoever writes the next file several; without the pause only the second of two processes pays."""
NEEDED_GB = 30
BLOCK_SIZE = 1 << 26
"""All weights are cut from this many numbers: drawing 3.5e9 would take longer than everything else."""

PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command from a small process: a child's peak begins with the memory of the one that forked it."""

DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionXLPipeline
base, configs, lora, out = sys.argv[1:]
pipeline = StableDiffusionXLPipeline.from_single_file(base, config=configs, torch_dtype=torch.float16)
pipeline.load_lora_weights(lora)
pipeline.fuse_lora()
pipeline.unload_lora_weights()
pipeline.save_pretrained(out)
"""


def run() -> Table:
    """Make the files, time all three, delete everything."""
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < NEEDED_GB:
        note = f"not run: {tempfile.gettempdir()} has {free:.0f} GB free, {NEEDED_GB} are needed"
        return Table("fuse: at SDXL's true size", ["what"], [["-"]], [note])
    with tempfile.TemporaryDirectory(prefix="bench-fuse-") as name:
        return _measured(Path(name))


def _measured(place: Path) -> Table:
    base, lora, configs = place / "base.safetensors", place / "lora.safetensors", place / "configs"
    models = true_size_models()
    write_configs(configs, models)
    write_base(base, models)
    count = write_random_lora(lora, models)
    fuse = [
        sys.executable,
        "fuse_lora.py",
        "--quiet",
        "--base",
        base,
        "--lora",
        lora,
        "--out",
        place / "ours.safetensors",
    ]
    copy = ["cp", "--reflink=never", base, place / "copy.safetensors"]
    theirs = [sys.executable, "-c", DIFFUSERS, base, configs, lora, place / "theirs"]
    runs: dict[str, list[tuple[float, float]]] = {"cp": [], "sdxl-mel fuse": [], "diffusers": []}
    for _ in range(REPEATS):
        runs["cp"].append(timed(copy, place / "copy.safetensors"))
        runs["sdxl-mel fuse"].append(timed(fuse, place / "ours.safetensors"))
    runs["diffusers"].append(timed(theirs, place / "theirs"))
    fastest = min(seconds for seconds, _ in runs["cp"])
    rows = [
        [what, f"{min(times)[0]:.1f}", f"{min(times)[0] / fastest:.2f}", f"{max(peak for _, peak in times):.2f}"]
        for what, times in runs.items()
    ]
    size = base.stat().st_size / 1e9
    notes = [
        f"{size:.2f} GB fp16 single file of random weights, LoRA of rank {RANK} on {count} modules, fp32 sums",
        f"whole processes from start to fsync, {PAUSE} idle seconds before each, the fastest of {REPEATS} "
        "(diffusers: 1), input in the page cache",
        "cp and ours write one file; diffusers writes the same weights as a folder, summed in fp16",
    ]
    return Table("fuse: at SDXL's true size", ["what", "seconds", "times cp", "peak memory GB"], rows, notes)


def timed(command: list[object], out: Path) -> tuple[float, float]:
    """Pause, run a command, flush what it wrote, delete it; return (seconds, peak resident memory in GB)."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    for path in [out] if out.is_file() else out.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()
    return seconds, int(done.stdout.split()[-1]) * 1024 / 1e9


def true_size_models() -> dict[Part, nn.Module]:
    """Return SDXL 1.0's four models without memory (configs of stabilityai/stable-diffusion-xl-base-1.0)."""
    with torch.device("meta"):
        return {
            "unet": meta_sdxl_unet(),
            "vae": _vae(),
            "text_encoder": CLIPTextModel(_text(768, 3072, 12, 12, "quick_gelu")),
            "text_encoder_2": CLIPTextModelWithProjection(_text(1280, 5120, 32, 20, "gelu")),
        }


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=1024,
        scaling_factor=0.13025,
    )


def _text(width: int, inner: int, layers: int, heads: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        hidden_act=act,
    )


def write_configs(folder: Path, models: dict[Part, Any]) -> None:
    """Write a diffusers folder without weights."""
    write_tiny_sdxl(folder)
    for part, model in models.items():
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
        if part in ("unet", "vae"):
            model.save_config(folder / part)
        else:
            model.config.save_pretrained(folder / part)


def write_base(path: Path, models: dict[Part, Any]) -> None:
    """Write a single-file checkpoint of random numbers."""
    types: dict[Param, TensorType] = {}
    for part, model in models.items():
        flat = part == "text_encoder" and not hasattr(model, "text_model")
        for name, tensor in model.state_dict().items():
            if not name.endswith("position_ids"):
                canonical = f"text_model.{name}" if flat else name
                types[part, canonical] = TensorType(torch.float16, tuple(tensor.shape))
    source = Checkpoint(path, Architecture(SDXL), {}, {}, True)
    write_single_file(path, source, types, lambda param, out: out.copy_(_weight(types[param].shape, str(param))), {})


def write_random_lora(path: Path, models: dict[Part, Any]) -> int:
    """Write a LoRA on every Linear of the transformers and return their number."""
    modules = {}
    for part in ADAPTABLE:
        for name, layer in linear_paths(part, models[part]).items():
            out, inner = layer.weight.shape
            down, up = _random((RANK, inner), f"down {name}").float(), _random((out, RANK), f"up {name}").float()
            modules[part, name] = LoraModule(down, up * 0.1, float(RANK))
    write_lora(path, Lora(modules, LoraHeader(spec=PRESETS["std"], anchor="mel spectrogram")), dtype=torch.float16)
    return len(modules)


def _weight(shape: tuple[int, ...], name: str) -> Tensor:
    """Return random numbers of a size that networks let through; the gains of norms, their only vectors, are 1."""
    return torch.ones(shape).half() if len(shape) == 1 and name.endswith("weight')") else _random(shape, name)


def _random(shape: tuple[int, ...], what: str) -> Tensor:
    """Return numbers from the block, from a place that depends on `what`."""
    count = math.prod(shape)
    start = sum(map(ord, what)) * 8191 % (BLOCK_SIZE - count)
    return _block()[start : start + count].reshape(shape)


@cache
def _block() -> Tensor:
    return (torch.randn(BLOCK_SIZE, generator=torch.Generator().manual_seed(0)) * 0.02).half()

"""A training step of ours beside the bare step and beside diffusers' example, and what it costs at SDXL's true size."""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch.nn import functional as F

from bench import train_memory
from bench.table import Table
from bench.train_models import MINI, SDXL, SDXL_UNET, Size, finisher, random_cache, random_models
from bench.train_peer import peer_step
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.training.batches import Batch, Diffusion, TrainingData
from sdxl_mel.training.costs import count_costs, memory_of
from sdxl_mel.training.log import Log
from sdxl_mel.training.loop import Loop, numbers_of, open_state, require_finite
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.lora_task import LoraTask, Objective
from sdxl_mel.training.model import Model, build_model

STEPS = 7
CLIPS = 64
GIB = 2**30
RUNS = Path("runs")


def run() -> Table:
    """Time mini on the CPU, SDXL on a GPU where there is one, and count SDXL where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        rows = timed(MINI, torch.device("cpu"), torch.float32, Path(folder) / "mini")
        if torch.cuda.is_available():
            rows += timed(SDXL, torch.device("cuda"), torch.bfloat16, Path(folder) / "sdxl")
    rows += [counted(False, 24), counted(True, 12), *train_memory.rows(), *learnt()]
    notes = [
        f"Seconds of a step, median of {STEPS} in turns in one process; attention LoRA on both sides, random weights. "
        "`bare` is forward, backward and optimizer of our UNet and adapters on a batch in memory; `ours` is the whole "
        "step: drawing, noise, loss, clipping, logging.",
        "`diffusers` is the step of its example text_to_image_lora_sdxl.py (see bench/train_peer.py).",
        "True size is counted on tensors without memory (sdxl_mel/training/costs.py), rank 32 on all 722 Linear, "
        "AdamW in float32, 1.5 GiB for CUDA's context.",
        "Activations: under bare what autograd keeps of a UNet of one level, 16 x 32 latents, bf16 on the CPU, each "
        "storage once; under ours what is counted.",
    ]
    if not torch.cuda.is_available():
        notes.append("No CUDA device here: the rows that need one are left out.")
    return Table("train", ["what", "bare", "ours", "diffusers", "ours / bare", "ours / diffusers"], rows, notes)


def timed(size: Size, device: torch.device, dtype: torch.dtype, folder: Path) -> list[list[str]]:
    """Return a row of seconds, and on a GPU one of peak memory."""
    memory = device.type == "cuda"
    if memory:
        torch.cuda.reset_peak_memory_stats(device)
    task, loop = open_loop(size, device, dtype, folder)
    with closing(loop.drawn_ahead()) as batches:
        ours, bare = our_step(loop, batches), bare_step(task.model, task.batch(0, range(size.batch)))
        if not memory:
            peer = peer_step(random_models(size, device, dtype, whole=True), size, device, dtype)
            return [_row(size.name, in_turns([bare, ours, peer], finisher(device)))]
        first = in_turns([bare, ours], finisher(device))
        peak = torch.cuda.max_memory_allocated(device) / GIB
    del task, loop, ours, bare
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    peer = peer_step(random_models(size, device, dtype, whole=True), size, device, dtype)
    (second,) = in_turns([peer], finisher(device))
    theirs = torch.cuda.max_memory_allocated(device) / GIB
    gigabytes = [f"{size.name}, peak GiB", "", f"{peak:.2f}", f"{theirs:.2f}", "", f"{peak / theirs:.2f}"]
    return [_row(size.name, [*first, second]), gigabytes]


def open_loop(
    size: Size, device: torch.device, dtype: torch.dtype, folder: Path, targets: Sequence[str] = ("attention",)
) -> tuple[LoraTask, Loop]:
    """Return a run on random weights and clips, as `sdxl-mel train` sets it up."""
    config = Config.model_validate(
        {
            "base": "bench",
            "cache": folder / "cache",
            "out": folder / "run",
            "steps": 1000,
            "batch": size.batch,
            "trackers": (),
            "adapter": {"rank": size.rank, "targets": targets},
        }
    )
    cache = random_cache(folder / "cache", size, CLIPS)
    base: Any = random_models(size, device, dtype, whole=False)
    model = build_model(
        base,
        config.adapter,
        config.hardware,
        clip_skip=0,
        size=size.spec.size,
        device=device,
        seed=0,
    )
    diffusion = Diffusion(base.scheduler.alphas_cumprod.double(), "epsilon")
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    task = LoraTask(
        model,
        TrainingData(cache, {"train": cache.examples("train")}, diffusion, config.data),
        Objective(config.loss, diffusion, config.steps).to(device),
        header=LoraHeader(),
        adapter=config.adapter,
        optimizer=config.optimizer,
        clips={},
        accelerator=accelerator,
    )
    state = open_state(task, config.loop)
    return task, Loop(task, config.loop, config.out, accelerator, state, Log(config.out, accelerator, 0))


def our_step(loop: Loop, batches: Iterator[Any]) -> Callable[[], None]:
    """Return our whole step, its numbers read and written."""

    def step() -> None:
        measured = loop.step(next(batches))
        require_finite(measured, None)
        loop.log.write(measured.step, numbers_of(measured, loop.settings.batch, 0.0))

    return step


def bare_step(model: Model, batch: Batch) -> Callable[[], None]:
    """Return forward, backward and optimizer on one batch that is there already."""
    ready = batch.to(model.device, model.dtype)
    parameters = model.adapters.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> None:
        F.mse_loss(model.predict(ready).float(), ready.target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_turns(calls: Sequence[Callable[[], None]], finish: Callable[[], None]) -> list[float]:
    """Return the median seconds of each call, in turns after one warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(STEPS + 1):
        for times, call in zip(seconds, calls):
            finish()
            start = time.perf_counter()
            call()
            finish()
            if turn:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def counted(checkpointing: bool, limit: int) -> list[str]:
    """Return what a batch of two at true size takes."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(SDXL_UNET).to(torch.bfloat16)
        attach({"unet": unet}, rank=32, alpha=32)
    started = time.perf_counter()
    costs = count_costs(unet, batch=2, height=64, width=128, dtype=torch.bfloat16, checkpointing=checkpointing)
    seconds = time.perf_counter() - started
    memory = memory_of(costs, "adamw", torch.bfloat16) | {"context": 1.5 * GIB}
    total = sum(memory.values()) / GIB
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory.items())
    name = "with" if checkpointing else "without"
    what = f"SDXL, std, batch 2, {name} checkpointing (GiB, at most {limit}; counted in {seconds:.1f} s)"
    return [what, "", f"{total:.2f}", parts, f"{costs.flops / 1e12:.1f} TFLOP", "fits" if total < limit else "too much"]


def learnt() -> list[list[str]]:
    """Return the held-out losses of finished runs under runs/, first and last."""
    rows = []
    for path in sorted(RUNS.rglob("run.json")):
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        for name, value in results.items():
            if name.startswith("squared error"):
                rows.append([f"{path.parent}: {name}", "", f"{value[0]} -> {value[1]}", "", "", ""])
    return rows


def _row(name: str, seconds: Sequence[float]) -> list[str]:
    bare, ours, peer = seconds
    return [name, f"{bare:.3f}", f"{ours:.3f}", f"{peer:.3f}", f"{ours / bare:.3f}", f"{ours / peer:.3f}"]

"""Several processes are one: the same gradients, the same batch, one that writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.write_gradients import main

ROOT = Path(__file__).parents[2]
SHARED = {"steps": 1, "batch": 5, "trackers": [], "validation": {"every": 1, "clips": 1}}
TASKS = {
    "lora": {
        "adapter": {"rank": 2, "targets": ["attention"], "rank_dropout": 0.2, "module_dropout": 0.1},
        "regularization": {"share": 0.4},
    },
    "steps": {"task": "steps", "adapter": {"rank": 2}, "draw_steps": [2], "objective": "unrolled"},
    "student": {"task": "student", "student": {"block_out_channels": [16, 32, 48]}},
    "text-encoder": {"task": "text-encoder", "encoder": {"layers": [2, 2]}},
    "small-decoder": {"task": "small-decoder", "decoder": {"block_out_channels": [4, 4, 8, 8]}},
    "decoder": {"task": "decoder", "loss": {"sizes": [4, 8]}},
    "refiner": {"task": "refiner", "refiner": {"widths": [8, 8]}, "redrawn": {"steps": 3, "low": 0.4}},
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_of_half_the_batch_have_the_gradients_of_one(
    task, slim_sdxl, small_cache, six_trajectories, tmp_path
):
    source = {"trajectories": str(six_trajectories)} if task == "steps" else {"cache": str(small_cache)}
    if task in ("decoder", "refiner"):
        source["dataset"] = str(small_cache.parent / "dataset")
    settings = SHARED | TASKS[task] | source | {"base": str(slim_sdxl)}
    main(json.dumps(settings | {"out": str(tmp_path / "one")}), str(tmp_path / "one.safetensors"))
    words = [json.dumps(settings | {"out": str(tmp_path / "two")}), str(tmp_path / "two.safetensors")]
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_cpu_threads_per_process",
        "1",
    ]
    command = [sys.executable, *launcher, "--mixed_precision", "no", "-m", "tests.training.write_gradients", *words]
    finished = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert one.keys() == two.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 0
    for name, gradient in one.items():
        assert torch.allclose(gradient, two[name], rtol=1e-5, atol=1e-5 * largest), name
    logged = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    for ours, theirs in zip(*logged, strict=True):
        assert ours["step"] == theirs["step"]
        for name in set(ours) - {"seconds", "step", "by_timestep", "by_segment"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name
        for name in ("by_timestep", "by_segment"):
            for one, two in zip(ours.get(name, ()), theirs.get(name, ()), strict=True):
                assert (one is None and two is None) or one == pytest.approx(two, rel=1e-4)

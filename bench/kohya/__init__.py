"""A step of kohya's SDXL LoRA trainer beside ours and that of diffusers' example: seconds by parts, and memory.

Given a checkout of github.com/kohya-ss/sd-scripts, which is neither copied nor needed for anything else. Each trainer
runs in a process of its own, kohya's in the interpreter of its checkout: it asks for other versions of torch's
libraries than we do. Weights are random, of the same shapes.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from bench.kohya.measure import PARTS, total
from bench.table import Table
from sdxl_mel.errors import InputError, MissingError, SdxlMelError
from sdxl_mel.sound.melspec import PRESETS

SizeName = Literal["sdxl", "tiny"]
WIDTHS = {"sdxl": 320, "tiny": 64}
SCRIPT = "sdxl_train_network.py"
NEEDED = ("torchvision", "cv2", "einops", "imagesize", "toml", "voluptuous")
"""What the modules of its SDXL trainer import, beside what we need too."""
INTERPRETERS = ("venv/bin/python", ".venv/bin/python", "venv/Scripts/python.exe")
ROUNDS = 2
"""One after the other: a machine that others use is as slow for all."""
ROOT = Path(__file__).parents[2]
FIND = (
    "import sys; from importlib.util import find_spec; print(*[each for each in sys.argv[1:] if not find_spec(each)])"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--kohya", type=Path, required=True, help="checkout of github.com/kohya-ss/sd-scripts")
    parser.add_argument(
        "--python", default=None, help="its interpreter; none = that of a venv in the checkout, or ours"
    )
    parser.add_argument("--size", choices=("sdxl", "tiny"), default="sdxl", help="SDXL 1.0, or one a fifth as wide")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="web", help="size of the tiles")
    parser.add_argument("--batch", type=int, default=1, help="examples of a step")
    parser.add_argument("--rank", type=int, default=32, help="rank on all 722 Linear layers of the transformers")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of weights and computation")
    parser.add_argument("--steps", type=int, default=3, help="steps measured, after one that warms up")


def run(kohya: Path, python: str | None = None, size: SizeName = "sdxl", **chosen: Any) -> Table:
    """Measure all three, in turns."""
    interpreter = python or interpreter_of(kohya)
    require_packages(interpreter)
    width, height = PRESETS[chosen["preset"]].size
    settings = json.dumps(chosen | {"width": WIDTHS[size], "pixels": (height, width)})
    commands = {
        "ours": [sys.executable, "-m", "bench.kohya.ours", "ours", settings],
        "kohya": [interpreter, "-m", "bench.kohya.theirs", str(kohya.resolve()), settings],
        "diffusers": [sys.executable, "-m", "bench.kohya.ours", "diffusers", settings],
    }
    rounds = [{name: measured(command) for name, command in commands.items()} for _ in range(ROUNDS)]
    found = {name: min((each[name] for each in rounds), key=total) for name in commands}
    what = f"{size}, {width} x {height}, batch {chosen['batch']}, rank {chosen['rank']}, {chosen['precision']}"
    notes = [
        f"{what}; random weights, adapters on all 722 Linear layers; the quickest of {chosen['steps']} "
        f"steps after one, in {ROUNDS} rounds of all three.",
        "Forward is the call of the UNet, backward that of the loss, rest everything else: the batch, noise, the VAE "
        "and the text encoders where they work, clipping, the optimizer, logging.",
        "ours and kohya: latents and texts from caches; diffusers encodes both at every step. kohya's data loader is "
        "left out in its favour. Peak: while steps are taken, of the GPU where there is one, else of the process.",
    ]
    head = ["trainer", "seconds a step", *PARTS, "peak GiB", "times ours"]
    return Table(
        "kohya: a step beside others", head, [_row(name, each, found["ours"]) for name, each in found.items()], notes
    )


def interpreter_of(kohya: Path) -> str:
    """Return the interpreter of a checkout. Raises InputError for a folder that is none."""
    if not (kohya / SCRIPT).is_file():
        raise InputError(f"--kohya {kohya}: has no {SCRIPT}; give a checkout of github.com/kohya-ss/sd-scripts")
    return next((str(kohya / path) for path in INTERPRETERS if (kohya / path).exists()), sys.executable)


def require_packages(interpreter: str) -> None:
    """Raise MissingError that names the packages of kohya's trainer that its interpreter lacks."""
    try:
        done = subprocess.run([interpreter, "-c", FIND, *NEEDED], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"--python {interpreter}: cannot be run ({error}); give the Python of its venv") from error
    if lacking := done.stdout.split():
        raise MissingError(
            f"{interpreter}: lacks {', '.join(lacking)}, which kohya's trainer imports; install its requirements.txt "
            "into a venv of its own (it asks for other versions than we do) and give --python VENV/bin/python"
        )


def measured(command: list[str]) -> dict[str, float]:
    """Run a measurement in a process of its own; return what its last line says."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SdxlMelError(f"{' '.join(command[:4])}: ended with code {done.returncode}: {done.stderr.strip()[-800:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(name: str, found: dict[str, float], ours: dict[str, float]) -> list[str]:
    seconds, reference = total(found), total(ours)
    parts = [f"{found[part]:.2f}" for part in PARTS]
    return [name, f"{seconds:.2f}", *parts, f"{found['peak'] / 2**30:.2f}", f"{seconds / reference:.2f}"]

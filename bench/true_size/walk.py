"""The steps of the walk, and what a process takes: seconds, resident memory, bytes that it wrote."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.demo.plan import Line
from sdxl_mel.demo.steps import Step, config_path, run_steps
from sdxl_mel.errors import SdxlMelError
from sdxl_mel.models.family import ADAPTABLE
from sdxl_mel.models.lora.file import read_lora

RESULTS = "steps"
LOOK_EVERY = 0.1
LAST = 5
"""Looks that are the end of a process."""
ENDED_WELL = {0, 3}
"""3: inputs were left out, which the report lists."""
MODELS = "-m bench.true_size.models"
"""The module that makes the base, and that opens the fused file with diffusers."""
PROMPT = "violin and piano, slow, folk tune"
TRAIN = (
    "--config {config} --base {base} --validation.every 0 --samples.every 0 --hardware.precision bf16 "
    "--micro-batch 1 --save-every 1 --averages.lengths 0.1"
)
TWO_STEPS = f"{TRAIN} --cache {{cache}} --out {{run}} --steps 2 --batch 2"
ONE_STEP = (
    f"{TRAIN} --cache {{cache_std}} --out {{run_std}} --steps 1 --batch 1 "
    "--adapter.text-encoders text_encoder text_encoder_2"
)
LINES = (
    Line("base", "make an SDXL of random weights", "", "base {size} {base} {configs}", MODELS),
    Line("prepare", "music to tiles, preset web", "prepare", "{demo} --preset web --out {dataset}"),
    Line("cache", "encode them", "cache", "--base {base} --dataset {dataset} --splits train --out {cache}"),
    Line("killed", "train, killed after the first step", "train", TWO_STEPS),
    Line("resumed", "resume, the second step", "train", f"{TWO_STEPS} --resume"),
    Line("prepare-std", "music to tiles, preset std", "prepare", "{demo} --preset std --out {dataset_std}"),
    Line("cache-std", "encode them", "cache", "--base {base} --dataset {dataset_std} --splits train --out {cache_std}"),
    Line("train-std", "one step at std, text encoders too", "train", ONE_STEP),
    Line("fuse", "fuse into a single file", "fuse", "--base {base} --lora {lora} --out {fused}"),
    Line("open", "open that with diffusers", "", "open {fused} {configs}", MODELS),
    Line("generate", "draw two tiles in two steps", "generate", "--base {fused} {draw} --out {tiles}"),
    Line("stitch", "join them, and their sound", "stitch", "{tiles} --overlap 25% --out {long} --wav {sound}"),
    Line("evaluate", "score them", "evaluate", "--generated {tiles} --reference {dataset} {measure} --out {scores}"),
)
PLACES = {
    "configs": "configs",
    "dataset": "dataset",
    "cache": "cache",
    "run": "run",
    "dataset_std": "dataset-std",
    "cache_std": "cache-std",
    "run_std": "run-std",
    "lora": "run/lora.safetensors",
    "fused": "fused.safetensors",
    "tiles": "tiles",
    "long": "long.png",
    "sound": "long.wav",
    "scores": "scores",
}
ANEW = {"killed": "run", "train-std": "run_std"}
"""What a step begins anew: a training does not go on with what an interrupted walk left, unless it is told to."""
FIXED = {
    "{demo}": "--source demo --tracks 5 --count 1 --seed 0",
    "{draw}": "--prompt {prompt} --num 2 --steps 2 --batch 1 --dtype bf16 --method fast --seed 0",
    "{measure}": "--embedder musicnn-msd mel --inversion fast",
}


@dataclass(frozen=True)
class Measured:
    """What a step took: seconds, bytes of resident memory at its peak and at its end, bytes of what it wrote."""

    seconds: float
    peak: int
    last: int
    written: int


def steps_of(size: str, place: Path) -> list[Step]:
    """Return the steps for a size in a folder."""
    values = {name: str(place / path) for name, path in PLACES.items()}
    values |= {"size": size, "prompt": PROMPT, "config": str(config_path("sdxl-24gb"))}
    values["base"] = str(place / ("base" if size == "tiny" else "base.safetensors"))
    steps = []
    for line in LINES:
        words = " ".join(FIXED.get(word, word) for word in line.words.split()).split()
        steps.append(
            Step(line.name, line.why, line.stage, tuple(word.format_map(values) for word in words), line.script)
        )
    return steps


def walk(steps: Sequence[Step], place: Path) -> Iterator[tuple[Step, Measured]]:
    """Run the steps that are not done yet in order; yield each with what it took."""

    def run(step: Step) -> str:
        if step.name in ANEW:
            shutil.rmtree(place / PLACES[ANEW[step.name]], ignore_errors=True)
        before = bytes_in(place)
        until = place / PLACES["run"] / "state" / "step-000001" if step.name == "killed" else None
        peak, last = follow(arguments(step), place / RESULTS / f"{step.name}.log", until)
        return json.dumps({"peak": peak, "last": last, "written": bytes_in(place) - before})

    for done in run_steps(steps, place, first=1, count=len(steps), run=run):
        yield done.step, Measured(done.seconds, **json.loads(done.summary))


def arguments(step: Step) -> list[str]:
    """Return the command of a step."""
    program = step.script.split() if step.script else ["-m", "sdxl_mel", step.stage]
    return [sys.executable, *program, *step.words]


def follow(command: Sequence[str], log: Path, until: Path | None = None) -> tuple[int, int]:
    """Run a command; return the bytes that it held at its peak, and the most in its last half second.

    With `until` the process is killed as soon as that is there. What it says goes into `log`. Raises SdxlMelError where
    it ends in another way than it should.
    """
    sizes = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            sizes.append(resident(process.pid))
            if until is not None and until.exists():
                process.kill()
                break
            time.sleep(LOOK_EVERY)
    expected = {-signal.SIGKILL} if until else ENDED_WELL
    if process.returncode not in expected:
        said = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise SdxlMelError(f"{' '.join(command)}: ended with code {process.returncode}: {''.join(said)} (all in {log})")
    return max(sizes), max(list(filter(None, sizes))[-LAST:])


def resident(pid: int) -> int:
    """Return the bytes of a process that lie in memory, 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def checks(place: Path) -> Mapping[str, str]:
    """Return what the results must show: the layers that have adapters, and what diffusers found in the fused file."""
    counts = {}
    for run in ("run", "run_std"):
        parts = [part for part, _ in read_lora(place / PLACES[run] / "lora.safetensors").modules]
        counts[run] = " + ".join(str(parts.count(part)) for part in ADAPTABLE if part in parts)
    return {"layers with adapters": f"{counts['run']}; with text encoders {counts['run_std']}"}

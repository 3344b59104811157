"""Steps of the demo: each is one public command, done once, and found done when the demo is run again."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel import __version__
from sdxl_mel.commands import run_command
from sdxl_mel.errors import InputError, MissingError, SdxlMelError
from sdxl_mel.files.atomic import write_json
from sdxl_mel.progress import log
from sdxl_mel.record import sha256_bytes

ROOT = Path(__file__).parents[2]
THREADS = "--num_cpu_threads_per_process"
LAUNCH = {
    "--num_processes": "1",
    "--num_machines": "1",
    "--mixed_precision": "no",
    "--dynamo_backend": "no",
    THREADS: str(os.cpu_count() or 1),
}
"""What `accelerate launch` would otherwise ask for or warn about; left to itself it gives torch one thread."""


@dataclass(frozen=True)
class Step:
    """A command of the demo: the stage and its words; `script` is the one at the root that people know it by."""

    name: str
    why: str
    stage: str
    words: tuple[str, ...]
    script: str | None = None

    @property
    def command(self) -> str:
        """Return the line that a person would type."""
        words = shlex.join(self.words)
        if self.script is None:
            return f"sdxl-mel {self.stage} {words}"
        launcher = f"accelerate launch {THREADS} {os.cpu_count()}" if self.stage == "train" else "python"
        return f"{launcher} {self.script} {words}"


@dataclass(frozen=True)
class Done:
    """A finished step, the seconds it took, and what it said at its end."""

    step: Step
    seconds: float
    summary: str


def fingerprint(step: Step) -> str:
    """Return what changes when the step would do something else."""
    return sha256_bytes(json.dumps([__version__, step.stage, step.words]).encode())


def config_path(name: str) -> Path:
    """Return a run's config by name, of the clone."""
    path = ROOT / "configs" / f"{name}.toml"
    if not path.exists():
        raise MissingError(
            f"{path}: no such config; the demo runs from a clone of the repository, not from the package"
        )
    return Path(os.path.relpath(path))


def run_step(step: Step) -> str:
    """Run a step and return what it says at its end."""
    if step.script is not None:
        return _run_script(step, ROOT / step.script)
    summary = run_command(step.stage, step.words).summary()
    log(summary, detail=True)
    return summary


def _run_script(step: Step, script: Path) -> str:
    """Run a script of the root in a process of its own, as a person would; training goes on where it was."""
    words = [*step.words]
    launcher = []
    if step.stage == "train":
        launcher = ["-m", "accelerate.commands.launch", *chain.from_iterable(LAUNCH.items())]
        words += ["--resume"] if (Path(words[words.index("--out") + 1]) / "run.json").exists() else []
    command = [sys.executable, *launcher, str(script), *words]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode != 0:
        raise SdxlMelError(f"demo: step {step.name!r} ended with code {finished.returncode}; its own words are above")
    return finished.stdout.strip()


def run_steps(
    steps: Sequence[Step], folder: Path, first: int, count: int, run: Callable[[Step], str] = run_step
) -> Iterator[Done]:
    """Run the steps in order, skipping those that were finished before; yield each when it is done.

    They are numbers `first` and on, of `count`; `run` does a step and returns what it says at its end. Raises
    InputError when `folder` holds a step that was run with other words.
    """
    for number, step in enumerate(steps, first):
        marker = folder / "steps" / f"{number:02d}-{step.name}.json"
        earlier = _read_marker(marker, step)
        if earlier is not None:
            yield earlier
            continue
        log(f"\n[{number}/{count}] {step.why}\n  {step.command}")
        start = time.monotonic()
        summary = run(step)
        done = Done(step, round(time.monotonic() - start, 1), summary)
        content: dict[str, JsonValue] = {"command": step.command, "seconds": done.seconds, "summary": summary}
        write_json(marker, content | {"fingerprint": fingerprint(step)})
        yield done


def _read_marker(marker: Path, step: Step) -> Done | None:
    if not marker.exists():
        return None
    content = json.loads(marker.read_text(encoding="utf-8"))
    if content["fingerprint"] != fingerprint(step):
        raise InputError(
            f"{marker}: this folder holds a demo made with other settings ({content['command']}); "
            "choose another --out, or delete the folder"
        )
    return Done(step, float(content["seconds"]), content["summary"])

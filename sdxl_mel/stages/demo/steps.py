"""Steps of the demo: each is one public command, done once, and found done when the demo is run again."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sdxl_mel import __version__
from sdxl_mel.arguments import parse_arguments
from sdxl_mel.errors import InputError, SdxlMelError
from sdxl_mel.files.atomic import write_json
from sdxl_mel.progress import say
from sdxl_mel.record import sha256_bytes

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Step:
    """A command of the demo: the stage and its words; `door` is the script at the root that people know it by."""

    name: str
    why: str
    stage: str
    words: tuple[str, ...]
    door: str | None = None

    @property
    def command(self) -> str:
        """Return the line that a person would type."""
        words = shlex.join(self.words)
        if self.door is None:
            return f"sdxl-mel {self.stage} {words}"
        launcher = "accelerate launch" if self.stage == "train" else "python"
        return f"{launcher} {self.door} {words}"


@dataclass(frozen=True)
class Done:
    """A finished step and the seconds it took."""

    step: Step
    seconds: float


def run_steps(steps: Sequence[Step], folder: Path) -> Iterator[Done]:
    """Run the steps in order, skipping those that were finished before; yield each when it is done.

    Raises InputError when `folder` holds a step that was run with other words.
    """
    for number, step in enumerate(steps, 1):
        marker = folder / "steps" / f"{number:02d}-{step.name}.json"
        earlier = _read_marker(marker, step)
        if earlier is not None:
            yield Done(step, earlier)
            continue
        say(f"\n[{number}/{len(steps)}] {step.why}\n  {step.command}")
        start = time.monotonic()
        _run(step)
        seconds = time.monotonic() - start
        write_json(marker, {"command": step.command, "seconds": round(seconds, 2), "fingerprint": fingerprint(step)})
        yield Done(step, seconds)


def fingerprint(step: Step) -> str:
    """Return what changes when the step would do something else."""
    return sha256_bytes(json.dumps([__version__, step.stage, step.words]).encode())


def _read_marker(marker: Path, step: Step) -> float | None:
    if not marker.exists():
        return None
    content = json.loads(marker.read_text(encoding="utf-8"))
    if content["fingerprint"] != fingerprint(step):
        raise InputError(
            f"{marker}: this folder holds a demo made with other settings ({content['command']}); "
            "choose another --out, or delete the folder"
        )
    return float(content["seconds"])


def _run(step: Step) -> None:
    if step.door is None:
        module = import_module(f"sdxl_mel.stages.{step.stage.replace('-', '_')}")
        say(module.run(parse_arguments(module.Config, step.words, f"sdxl-mel {step.stage}")).summary(), detail=True)
        return
    script = ROOT / step.door
    launcher = ["-m", "accelerate.commands.launch", "--num_processes", "1"] if step.stage == "train" else []
    target = [str(script)] if script.exists() else ["-m", "sdxl_mel", step.stage]
    if not script.exists():
        launcher = []
    finished = subprocess.run([sys.executable, *launcher, *target, *step.words], check=False)
    if finished.returncode != 0:
        raise SdxlMelError(f"demo: step {step.name!r} ended with code {finished.returncode}; its own words are above")

"""One run: a LoRA trained with the settings of a row, and measured."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ablations.judge import Judge
from bench.ablations.results import Measured
from bench.ablations.rows import Row, config_of
from sdxl_mel.commands import run_command
from sdxl_mel.training.lora_run import train_lora

CORPUS_SEED = 0


@dataclass(frozen=True)
class Workplace:
    """Where the corpus, its caches and the run under way lie."""

    folder: Path

    @property
    def dataset(self) -> Path:
        """Return the corpus of the demo, made first where it is not there."""
        path = self.folder / "dataset"
        if not (path / "dataset.json").exists():
            run_command("prepare", f"--source demo --preset mini --base mini --seed {CORPUS_SEED} --out {path}".split())
        return path

    def cache(self, clip_skip: int) -> Path:
        """Return the cache of the corpus, made first where it is not there."""
        path = self.folder / (f"cache-skip-{clip_skip}" if clip_skip else "cache")
        if not (path / "cache.json").exists():
            splits = "--splits train validation regularization"
            words = f"--dataset {self.dataset} --base mini {splits} --clip-skip {clip_skip} --out {path}"
            run_command("cache", words.split())
        return path


def carry_out(row: Row, seed: int, place: Workplace, judge: Judge) -> Measured:
    """Train and measure; the run itself is deleted by the next."""
    started, out = time.process_time(), place.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    trained = train_lora(config_of(row, seed, place.cache(row.clip_skip), out))
    assert trained is not None
    numbers = judge.measure(out / "lora.safetensors", seed) | {"held_out": held_out(trained)}
    numbers["seconds"] = time.process_time() - started
    return Measured(**{name: round(value, 5) for name, value in numbers.items()})


def held_out(trained: dict[str, Any]) -> float:
    """Return the squared error on held-out tracks of the weights that a run kept."""
    if "held-out loss of each" in trained:
        return float(trained["held-out loss of each"][trained["average"]])
    return float(trained["squared error, held out"][-1])

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
from sdxl_mel.demo.plan import FULL_MINUTES, Size
from sdxl_mel.training.lora_run import train_lora

CORPUS_SEED, TRACKS = 0, Size.of(FULL_MINUTES).tracks
"""Those of the demo."""


@dataclass(frozen=True)
class Workplace:
    """Where the corpus, its caches and the run under way lie."""

    folder: Path
    tracks: int = TRACKS

    @property
    def dataset(self) -> Path:
        """Return the corpus of the demo, made first where it is not there."""
        path = self.folder / "dataset"
        if not (path / "dataset.json").exists():
            words = f"--source demo --preset mini --base mini --tracks {self.tracks} --seed {CORPUS_SEED}".split()
            run_command("prepare", [*words, "--out", str(path)])
        return path

    def cache(self, clip_skip: int) -> Path:
        """Return the cache of the corpus, made first where it is not there."""
        path = self.folder / (f"cache-skip-{clip_skip}" if clip_skip else "cache")
        if not (path / "cache.json").exists():
            words = f"--base mini --splits train validation regularization --clip-skip {clip_skip}".split()
            run_command("cache", [*words, "--dataset", str(self.dataset), "--out", str(path)])
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

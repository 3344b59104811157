"""Few steps beside many on the mini base: adherence, nearness to the teacher's own tiles, spread, contrast, sound.

Tiles are kept below runs/distill, block by block, under a hash of what drew them: a table that was interrupted goes
on, and only what changed is drawn anew. `python -m bench.distill --prompts 100 --adapter runs/steps/lora.safetensors`
judges another adapter with fewer prompts.
"""

import argparse
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.kept import Kept
from bench.table import Table
from sdxl_mel.arrays import Float
from sdxl_mel.assets import step_adapter
from sdxl_mel.corpus.tracks import Split, TrackPlan, plan_tracks, render_track
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.metrics.frechet import frechet_change
from sdxl_mel.metrics.intervals import Interval, paired_interval, proportion_interval
from sdxl_mel.metrics.oracle import Oracle, load_oracle, statistics
from sdxl_mel.models.lora.file import read_lora
from sdxl_mel.progress import log
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.encoding import prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from tools.mini_base.captions import ANCHOR

PROMPTS = 200
BLOCK = 20
FOLDER = Path("runs/distill")
SPLITS: tuple[Split, ...] = ("test-seen", "test-unseen")
TRACKS = 400
"""Tracks planned of each split, as tools/train_mini_base.py judges them; duets alone are asked for."""

Tiles = NDArray[np.uint8]
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A way to draw: how, with what adapter, and how often the UNet is called for a tile."""

    name: str
    drawing: Drawing
    calls: int
    adapter: Path | None = None
    heard: bool = False

    @property
    def key(self) -> str:
        """Return a hash of all that decides its tiles."""
        content = b"" if self.adapter is None else self.adapter.read_bytes()
        return hashlib.sha256(repr(self.drawing).encode() + content).hexdigest()[:16]


TEACHER = Way("teacher: Euler, 25 steps, guided", Drawing("euler", 25, 2.5), 50)
SIXTEEN = Way("teacher: DPM++ 2M, 8 steps, guided", Drawing("dpmpp_2m", 8, 2.5), 16, heard=True)
OTHERS = (
    SIXTEEN,
    Way("teacher: DDIM trailing, 2 steps, guided", Drawing("ddim", 2, 2.5, "trailing"), 4),
)


def adapted(adapter: Path) -> tuple[Way, ...]:
    """Return the ways to draw with an adapter: as it asks, in 4, 2 and 8 steps."""
    name = adapter.parent.name if adapter.stem == "lora" else adapter.stem
    asked = read_lora(adapter).header.drawing
    heard = 4 if adapter == step_adapter("mini") else None
    return tuple(
        Way(f"{name}: {steps} steps, no guidance", replace(asked, steps=steps), steps, adapter, steps == heard)
        for steps in (4, 2, 8)
    )


def run(prompts: int = PROMPTS, adapters: Sequence[Path] = (), folder: Path = FOLDER) -> Table:
    """Judge the shipped adapter beside all ways of the teacher, or other adapters beside the teacher's own."""
    judge = Judge(folder, prompts)
    shipped = step_adapter("mini")
    ways = [TEACHER, *(() if adapters else OTHERS)]
    ways += [way for adapter in adapters or filter(None, [shipped]) for way in adapted(adapter)]
    rows = [judge.row(way) for way in ways]
    return Table(
        title="Few steps: the mini base and its step adapter",
        header=[
            *("how", "UNet calls", "both right", "less the teacher's", "seen, held-out pairs", "distance", "spread"),
            *("contrast in time, in frequency", "FAD change", "seconds a tile"),
        ],
        rows=rows,
        notes=[
            f"{prompts} prompts of held-out pieces for seen pairs of instruments and as many for held-out pairs, the "
            "same noise for all, float32. Both right: the oracle of docs/mini_base.md finds both instruments; 95 % "
            "intervals; the difference to the teacher is paired by prompt.",
            "Distance: to the teacher's own tile of the same prompt and noise, in the oracle's features, mean; spread: "
            "mean distance between tiles, contrast: mean change from frame to frame and from row to row, both as a "
            "share of the teacher's.",
            "FAD change: of musicnn, to real renders, against the 16 guided calls, paired; below 0 is nearer.",
            "Seconds a tile: with decoding, in batches of "
            f"{BLOCK} on one thread; only of those that were drawn in this run.",
        ],
    )


class Judge:
    """Draws, keeps and measures tiles."""

    def __init__(self, folder: Path, prompts: int) -> None:
        self.kept, self.prompts = Kept(folder), prompts
        self.oracle: Oracle = load_oracle()
        self.plans = {split: duets(split, prompts) for split in SPLITS}
        self.generator: Generator | None = None

    def row(self, way: Way) -> list[str]:
        """Return what is told of a way to draw."""
        start, drawn = time.perf_counter(), self._missing(way)
        mine, teachers = self.tiles(way), self.tiles(TEACHER)
        seconds = (time.perf_counter() - start) / drawn if drawn else None
        right, right_of_teacher = self.right(mine), self.right(teachers)
        both = proportion_interval(int(right.sum()), len(right))
        half = len(right) // 2
        near, near_teacher = (self.oracle.normal(statistics(tiles)) for tiles in (mine, teachers))
        contrasts = [contrast(mine, axis) / contrast(teachers, axis) for axis in (2, 1)]
        change = self.fad_change(way) if way.heard and way is not SIXTEEN else None
        return [
            way.name,
            str(way.calls),
            f"{both.value:.3f} ({both.low:.3f} to {both.high:.3f})",
            "" if way is TEACHER else told(paired_interval(right_of_teacher, right)),
            f"{right[:half].mean():.3f}, {right[half:].mean():.3f}",
            f"{np.linalg.norm(near - near_teacher, axis=1).mean():.2f}",
            f"{mean_distance(near) / mean_distance(near_teacher):.3f}",
            ", ".join(f"{each:.3f}" for each in contrasts),
            "" if change is None else told(change),
            "" if seconds is None else f"{seconds:.2f}",
        ]

    def right(self, tiles: Tiles) -> Rows:
        """Return 1 for each tile with both instruments of its caption, else 0."""
        wanted = [plan.instruments for split in SPLITS for plan in self.plans[split]]
        return np.array([float(all(flags)) for flags in self.oracle.found(tiles, wanted)])

    def tiles(self, way: Way) -> Tiles:
        """Return the tiles (2 prompts, n_mels, frames), seen pairs first."""
        return np.concatenate([self._block(way, split, first) for split, first in self._blocks()])

    def fad_change(self, way: Way) -> Interval:
        """Return the change of the FAD of musicnn to real renders, from that of the 16 guided calls."""
        sets = [self.embeddings(each) for each in (SIXTEEN, way)]
        real = self.kept.array(
            f"real-{self.prompts}", lambda: np.concatenate([self.embedded(sounds) for sounds in self._renders()])
        )
        before, after, reference = ((rows, self._owners(rows)) for rows in (*sets, real))
        return frechet_change(before, after, reference, 0)

    def _owners(self, rows: Rows) -> NDArray[np.int64]:
        """Return the tile of each row: all have as many windows."""
        tiles = 2 * self.prompts
        return np.arange(len(rows)) // (len(rows) // tiles)

    def embeddings(self, way: Way) -> Rows:
        """Return what musicnn makes of the sound of each tile, all windows of a tile together."""
        return np.concatenate([self._embedded_block(way, split, first) for split, first in self._blocks()])

    def _embedded_block(self, way: Way, split: Split, first: int) -> Rows:
        name = f"{way.key}-{split}-{first:03d}-musicnn"
        return self.kept.array(name, lambda: self.embedded(self._sounds(self._block(way, split, first))))

    def embedded(self, sounds: Iterable[Float]) -> Rows:
        """Return the embeddings of mono sounds at 16 kHz."""
        embedder = MusicnnEmbedder("msd")
        return np.concatenate([embedder.embed_audio(sound) for sound in sounds]).astype(np.float64)

    def _sounds(self, tiles: Tiles) -> list[Float]:
        spec = self._open(None).spec
        return [invert(tile[:, :, None], spec, "fast")[0] for tile in tiles]

    def _renders(self) -> Iterator[Float]:
        spec = self._open(None).spec
        for split in SPLITS:
            for plan in self.plans[split]:
                signal = prepare_signal(*render_track(plan), spec)[0]
                yield signal[spec.sample_rate : spec.sample_rate + spec.width * spec.hop_length]

    def _blocks(self) -> list[tuple[Split, int]]:
        return [(split, first) for split in SPLITS for first in range(0, self.prompts, BLOCK)]

    def _missing(self, way: Way) -> int:
        paths = [self.kept.path(f"{way.key}-{split}-{first:03d}") for split, first in self._blocks()]
        return BLOCK * sum(not path.exists() for path in paths)

    def _block(self, way: Way, split: Split, first: int) -> Tiles:
        return self.kept.array(f"{way.key}-{split}-{first:03d}", lambda: self._draw(way, split, first))

    def _draw(self, way: Way, split: Split, first: int) -> Tiles:
        generator = self._open(way.adapter)
        jobs = []
        for index, plan in enumerate(self.plans[split][first : first + BLOCK], first):
            prompt = f"{ANCHOR}, {plan.captions[0]}"
            jobs.append(Job(index, prompt, (TimedText(0.0, prompt),), negative="", seed=seed_of(split, index)))
        results = generator.draw(jobs, generator.settle(way.drawing).sampling, batch=BLOCK)
        return np.stack([result.levels[:, :, 0] for result in results])

    def _open(self, adapter: Path | None) -> Generator:
        """Return the mini base with this adapter alone."""
        if self.generator is None:
            self.generator = Generator.open("mini", dtype="fp32")
        if [each.path for each in self.generator.loras] != ([adapter] if adapter else []):
            self.generator.detach()
            if adapter is not None:
                self.generator.attach(adapter)
        return self.generator


def duets(split: Split, count: int) -> list[TrackPlan]:
    """Return the first tracks of two instruments of a split."""
    return [plan for plan in plan_tracks(split, TRACKS, 8.0) if len(plan.instruments) == 2][:count]


def seed_of(split: Split, index: int) -> int:
    """Return the seed of the noise that a track's tile is drawn from."""
    return derive_seed(0, "judge", split, index)


def contrast(tiles: Tiles, axis: int) -> float:
    """Return the mean change from one frame (axis 2) or row (axis 1) to the next."""
    return float(np.abs(np.diff(tiles.astype(np.float32), axis=axis)).mean())


def mean_distance(rows: Float) -> float:
    """Return the mean distance between rows."""
    squares = np.square(rows).sum(1)[:, None] + np.square(rows).sum(1) - 2 * rows @ rows.T
    return float(np.sqrt(np.maximum(squares, 0))[np.triu_indices(len(rows), 1)].mean())


def told(interval: Interval) -> str:
    """Return a difference with its bounds."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="prompts of each kind, a multiple of 20")
    parser.add_argument("--adapter", type=Path, action="append", default=[], help="adapter in place of the shipped one")
    words = parser.parse_args()
    log("judging")
    print(run(words.prompts, words.adapter).markdown())

"""Tiles that the mini base draws in one way or another for held-out prompts, kept by what drew them, and measured."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.kept import Kept
from sdxl_mel.arrays import Float
from sdxl_mel.corpus.tracks import Group, Split, TrackPlan, plan_tracks, render_track
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.errors import InputError
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.metrics.frechet import frechet_change
from sdxl_mel.metrics.intervals import Interval
from sdxl_mel.metrics.oracle import Oracle, load_oracle, statistics
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from tools.mini_base.captions import ANCHOR

SPEC = PRESETS["mini"]
BLOCK = 20
TRACK_SECONDS = 8.0
START = 1.0
"""Seconds into a render, where its tile begins: sound before the render's start is missing there."""
TRAINING_TILES = 400

Tiles = NDArray[np.uint8]
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A way to draw: how, with what LoRAs on what base, and how often the UNet is called for a tile."""

    name: str
    drawing: Drawing
    calls: int
    loras: tuple[Path, ...] = ()
    base: str = "mini"

    @property
    def key(self) -> str:
        """Return a hash of all that decides its tiles."""
        weights = b"".join(path.read_bytes() for path in self.loras)
        if self.base != "mini":
            files = sorted(Path(self.base).glob("*/*.safetensors"))
            if not files:
                raise InputError(f"{self.base}: no folder of a base; give RUN/base of a training")
            weights += b"".join(path.read_bytes() for path in files)
        return hashlib.sha256(repr(self.drawing).encode() + weights).hexdigest()[:16]


@dataclass(frozen=True)
class Prompts:
    """Held-out pieces by the name of their group; each group has as many, and of each the first caption is drawn."""

    groups: dict[str, list[TrackPlan]]

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    @property
    def plans(self) -> list[TrackPlan]:
        """Return all, group by group."""
        return [plan for plans in self.groups.values() for plan in plans]

    @property
    def wanted(self) -> list[tuple[str, ...]]:
        """Return the instruments of each."""
        return [plan.instruments for plan in self.plans]

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Return what is drawn and kept at once: a group and the first of its BLOCK prompts."""
        return [(group, first) for group, plans in self.groups.items() for first in range(0, len(plans), BLOCK)]


class TileStore:
    """Draws tiles and keeps them below a folder, block by block; only what is not there is drawn."""

    def __init__(self, folder: Path, prompts: Prompts) -> None:
        self.kept, self.prompts = Kept(folder), prompts
        self._opened: tuple[str, Generator] | None = None

    @cached_property
    def oracle(self) -> Oracle:
        """Return the judge of docs/mini_base.md."""
        return load_oracle()

    def missing(self, way: Way) -> int:
        """Return how many tiles are still to be drawn."""
        return BLOCK * sum(not self.kept.path(f"{way.key}-{name}-{first:03d}").exists() for name, first in self._blocks)

    def tiles(self, way: Way) -> Tiles:
        """Return the tiles (prompts, n_mels, frames), group by group."""
        return np.concatenate([self._block(way, group, first) for group, first in self._blocks])

    def right(self, way: Way) -> Rows:
        """Return 1 for each tile with all instruments of its caption, else 0."""
        return self.right_in(self.tiles(way))

    def right_in(self, tiles: Tiles) -> Rows:
        """Return the same of tiles that were drawn elsewhere."""
        return np.array([float(all(flags)) for flags in self.oracle.found(tiles, self.prompts.wanted)])

    def found(self, way: Way) -> list[list[bool]]:
        """Return for each tile whether each of its instruments is found."""
        return self.oracle.found(self.tiles(way), self.prompts.wanted)

    def features(self, way: Way) -> Rows:
        """Return the oracle's features of each tile, in which distances are measured."""
        return self.oracle.normal(statistics(self.tiles(way))).astype(np.float64)

    def nearest(self, features: Rows) -> Rows:
        """Return how far each tile is from the nearest of TRAINING_TILES tiles of the base's training."""
        training = self.kept.array(f"training-{TRAINING_TILES}", self._training)
        return np.sqrt(distances(features, self.oracle.normal(statistics(training)).astype(np.float64)).min(1))

    def fad_change(self, before: Way, after: Way) -> Interval:
        """Return the change of the FAD of musicnn to real renders, paired by prompt."""
        sets = [np.concatenate([self._embedded(way, *block) for block in self._blocks]) for way in (before, after)]
        real = self.kept.array(f"real-{len(self.prompts)}", lambda: embedded(map(self._render, self.prompts.plans)))
        old, new, reference = ((rows, self._owners(rows)) for rows in (*sets, real))
        return frechet_change(old, new, reference, 0)

    @property
    def _blocks(self) -> list[tuple[str, int]]:
        return self.prompts.blocks

    def _owners(self, rows: Rows) -> NDArray[np.int64]:
        """Return the tile of each row: all have as many windows."""
        return np.arange(len(rows)) // (len(rows) // len(self.prompts))

    def _block(self, way: Way, group: str, first: int) -> Tiles:
        return self.kept.array(f"{way.key}-{group}-{first:03d}", lambda: self._draw(way, group, first))

    def _embedded(self, way: Way, group: str, first: int) -> Rows:
        def make() -> Rows:
            return embedded(invert(tile[:, :, None], SPEC, "fast")[0] for tile in self._block(way, group, first))

        return self.kept.array(f"{way.key}-{group}-{first:03d}-musicnn", make)

    def _draw(self, way: Way, group: str, first: int) -> Tiles:
        generator = self._open(way)
        jobs = []
        for index, plan in enumerate(self.prompts.groups[group][first : first + BLOCK], first):
            prompt = f"{ANCHOR}, {plan.captions[0]}"
            jobs.append(Job(index, prompt, (TimedText(0.0, prompt),), negative="", seed=seed_of(group, index)))
        results = generator.draw(jobs, generator.settle(way.drawing).sampling, batch=BLOCK)
        return np.stack([result.levels[:, :, 0] for result in results])

    def _open(self, way: Way) -> Generator:
        """Return the base with these LoRAs alone."""
        if self._opened is None or self._opened[0] != way.base:
            self._opened = way.base, Generator.open(way.base, dtype="fp32")
        generator = self._opened[1]
        if tuple(each.path for each in generator.loras) != way.loras:
            generator.detach()
            for path in way.loras:
                generator.attach(path)
        return generator

    def _render(self, plan: TrackPlan) -> Float:
        signal = prepare_signal(*render_track(plan), SPEC)[0]
        first = round(START * SPEC.sample_rate)
        return signal[first : first + SPEC.width * SPEC.hop_length]

    def _training(self) -> Tiles:
        tiles = []
        for plan in plan_tracks("train", TRAINING_TILES, TRACK_SECONDS):
            signal = prepare_signal(*render_track(plan), SPEC)
            first = round(START * SPEC.sample_rate / SPEC.hop_length) * SPEC.hop_length
            tiles.append(encode_clip(cut_clip(signal, first, SPEC.width, SPEC), SPEC)[:, :, 0])
        return np.stack(tiles)


def duets(split: Split, count: int, group: Group = "base") -> list[TrackPlan]:
    """Return the first tracks of two instruments of a split."""
    plans = plan_tracks(split, 2 * count, TRACK_SECONDS, group=group)
    return [plan for plan in plans if len(plan.instruments) == 2][:count]


def seed_of(group: str, index: int) -> int:
    """Return the seed of the noise from which the tile of a prompt is drawn."""
    return derive_seed(0, "judge", group, index)


def embedded(sounds: Iterable[Float]) -> Rows:
    """Return what musicnn makes of mono sounds at 16 kHz, all windows of a sound together."""
    embedder = MusicnnEmbedder("msd")
    return np.concatenate([embedder.embed_audio(sound) for sound in sounds]).astype(np.float64)


def contrast(tiles: Tiles, axis: int) -> float:
    """Return the mean change from one frame (axis 2) or row (axis 1) to the next."""
    return float(np.abs(np.diff(tiles.astype(np.float32), axis=axis)).mean())


def distances(first: Rows, second: Rows) -> Rows:
    """Return the squared distances between rows, (first, second)."""
    squares = np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * first @ second.T
    return np.maximum(squares, 0)


def mean_distance(rows: Rows) -> float:
    """Return the mean distance between rows."""
    return float(np.sqrt(distances(rows, rows))[np.triu_indices(len(rows), 1)].mean())

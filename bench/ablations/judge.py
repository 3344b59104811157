"""What is measured of a LoRA: the new that is found, the known that is kept, FAD, diversity within a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.kept import Kept
from sdxl_mel.corpus.tracks import Group, TrackPlan, plan_tracks
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.evaluation.embeddings import SetEmbeddings
from sdxl_mel.files.dataset import read_dataset
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.metrics.frechet import distance_between
from sdxl_mel.metrics.oracle import Oracle, load_oracle, statistics
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from tools.mini_base.captions import ANCHOR

Tiles = NDArray[np.uint8]

NEW, KNOWN, EACH = 20, 24, 2
"""Prompts for new and for known instruments, and tiles of each of the first."""
DRAWING = Drawing("dpmpp_2m", 8, 3.0)
FIRST_SEED = 5000
"""The corpus seed of the prompts of run seed 0; no other prompts of the repository come from here."""


@dataclass(frozen=True)
class Judge:
    """Draws tiles with a LoRA on mini and measures them; `dataset` is the corpus, `folder` keeps what is made once."""

    dataset: Path
    folder: Path

    def measure(self, lora: Path, seed: int) -> dict[str, float]:
        """Return the measures of a LoRA's tiles; the prompts and the noise follow from the seed alone."""
        self.generator.detach()
        self.generator.attach(lora)
        new, known = prompts_of(seed)
        new_tiles, known_tiles = self.draw(new, EACH, seed), self.draw(known, 1, seed)
        return {
            "new_found": self.found(new_tiles, [plan for plan in new for _ in range(EACH)]),
            "known_found": self.found(known_tiles, known),
            "frechet": distance_between(self.embedded(new_tiles), self.reference),
            "diversity": self.diversity(new_tiles),
        }

    def draw(self, plans: Sequence[TrackPlan], each: int, seed: int) -> Tiles:
        """Return `each` tiles of every prompt, one after the other: (tiles, n_mels, frames)."""
        jobs: list[Job] = []
        for index, plan in enumerate(plans):
            prompt = f"{ANCHOR}, {plan.captions[0]}"
            for number in range(each):
                noise = derive_seed(seed, "ablations", index, number)
                jobs.append(Job(len(jobs), prompt, (TimedText(0.0, prompt),), negative="", seed=noise))
        sampling = self.generator.settle(DRAWING).sampling
        return np.stack([result.levels[:, :, 0] for result in self.generator.draw(jobs, sampling, batch=len(jobs))])

    def found(self, tiles: Tiles, plans: Sequence[TrackPlan]) -> float:
        """Return the share of tiles in which every instrument of the prompt is found."""
        return float(np.mean([all(flags) for flags in self.oracle.found(tiles, [plan.instruments for plan in plans])]))

    def diversity(self, tiles: Tiles) -> float:
        """Return the mean distance between the two tiles of a prompt, in the features of the oracle."""
        features = self.oracle.normal(statistics(tiles))
        return float(np.linalg.norm(features[::EACH] - features[1::EACH], axis=1).mean())

    def embedded(self, tiles: Tiles) -> NDArray[np.float64]:
        """Return unit vectors of the windows of the tiles' sounds, as `evaluate` compares them."""
        sounds = (invert(tile[:, :, None], self.generator.spec, "fast")[0] for tile in tiles)
        return SetEmbeddings([self.embedder.embed_audio(sound) for sound in sounds]).rows

    @cached_property
    def reference(self) -> NDArray[np.float64]:
        """Return the vectors of the corpus's real test tiles, made once."""
        kept: NDArray[np.float64] = Kept(self.folder).array("reference", self._embedded_reference)
        return kept

    def _embedded_reference(self) -> NDArray[np.float64]:
        dataset = read_dataset(self.dataset)
        levels = (read_spectrogram(dataset.path(item)).levels for item in dataset.splits["test"])
        return self.embedded(np.stack([np.rint(each.mean(-1)).astype(np.uint8) for each in levels]))

    @cached_property
    def generator(self) -> Generator:
        """Return the mini base, opened once."""
        return Generator.open("mini", dtype="bf16")

    @cached_property
    def oracle(self) -> Oracle:
        """Return the instrument oracle."""
        return load_oracle()

    @cached_property
    def embedder(self) -> MusicnnEmbedder:
        """Return musicnn."""
        return MusicnnEmbedder("msd")


def prompts_of(seed: int) -> tuple[list[TrackPlan], list[TrackPlan]]:
    """Return tracks of held-out pieces with new instruments, and with known ones, half of these in unheard pairs."""

    def plans(split: Literal["test-seen", "test-unseen"], count: int, group: Group = "base") -> list[TrackPlan]:
        return plan_tracks(split, count, group=group, seed=FIRST_SEED + seed)

    return plans("test-seen", NEW, "left-out"), plans("test-seen", KNOWN // 2) + plans("test-unseen", KNOWN // 2)

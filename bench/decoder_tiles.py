"""The tiles on which decoders are judged: renders of held-out pieces, and tiles that were drawn for their captions.

Of every track there are two tiles, one that goes through the VAE and the one after it, which nothing changes: other
music of the same kind. Instruments are those that the mini base knows, or those that no part of it has heard.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.kept import Kept
from sdxl_mel.arrays import Levels, Vectors
from sdxl_mel.corpus.tracks import Group, TrackPlan, plan_tracks, render_track
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.metrics.embedders.musicnn import MusicnnEmbedder
from sdxl_mel.models.base import open_base
from sdxl_mel.models.vae import encode, images_of
from sdxl_mel.record import sha256_file
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import named_spec
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.synthesis.layout import lay_out
from sdxl_mel.synthesis.settings import Length
from tools.mini_base.captions import ANCHOR

Instruments = Literal["known", "new"]
GROUPS: dict[Instruments, Group] = {"known": "base", "new": "left-out"}
SPEC = named_spec("mini")
FIRST_FRAME = 32
SECONDS = 9.0
TRACKS = 121
BLOCK = 22
HOW = Drawing("dpmpp_2m", 10, 2.5)

Tiles = NDArray[np.uint8]
"""Pictures (n, n_mels, frames, 1) as levels, lowest band in row 0."""


class JudgedTiles:
    """The tiles for one kind of instruments, kept in a folder; `lora` is put on the base where tiles are drawn."""

    def __init__(
        self, folder: Path, instruments: Instruments, tracks: int = TRACKS, lora: Path | None = None, seed: int = 0
    ) -> None:
        self.kept, self.instruments, self.lora = Kept(folder), instruments, lora
        self.plans: list[TrackPlan] = plan_tracks("test-seen", tracks, SECONDS, group=GROUPS[instruments], seed=seed)
        self.name = f"{instruments}-{tracks}" + (f"-of-{seed}" if seed else "")

    @cached_property
    def both(self) -> Tiles:
        """Return the tile that goes through the VAE and the one after it, (tracks, 2, n_mels, frames, 1)."""
        made: Tiles = self.kept.array(f"{self.name}-tiles", lambda: np.stack([_two_tiles(plan) for plan in self.plans]))
        return made

    @property
    def real(self) -> Tiles:
        """Return the tiles that go through the VAE."""
        return self.both[:, 0]

    @property
    def others(self) -> Tiles:
        """Return the other tiles of the same tracks."""
        return self.both[:, 1]

    @cached_property
    def latents(self) -> Tensor:
        """Return the means of the posteriors of the real tiles, unscaled, float32."""
        return torch.from_numpy(self.kept.array(f"{self.name}-latents", lambda: _encoded(self.real)))

    @cached_property
    def drawn(self) -> Tensor:
        """Return what the base (with the LoRA) draws for each track's first caption, unscaled latents, float32."""
        name, draw = f"{self.name}-drawn{self.lora_key}", _drawing(self.lora, self.plans)
        blocks = [self.kept.array(f"{name}-{first:03d}", partial(draw, first)) for first in self._blocks()]
        return torch.from_numpy(np.concatenate(blocks))

    @cached_property
    def lora_key(self) -> str:
        """Return what names the LoRA in names of arrays, nothing without one."""
        return "" if self.lora is None else f"-{sha256_file(self.lora)[:12]}"

    @cached_property
    def real_embeddings(self) -> Vectors:
        """Return the embeddings of the real tiles before they were encoded."""
        return self.embeddings(f"{self.name}-undecoded", lambda: self.real)

    @cached_property
    def other_embeddings(self) -> Vectors:
        """Return the embeddings of the other tiles."""
        return self.embeddings(f"{self.name}-others", lambda: self.others)

    def wanted(self) -> list[tuple[str, ...]]:
        """Return the instruments of each track."""
        return [plan.instruments for plan in self.plans]

    def embeddings(self, name: str, tiles: Callable[[], Tiles]) -> Vectors:
        """Return what musicnn makes of the sound of tiles, (tracks, windows, 200)."""

        def block(first: int) -> NDArray[np.float32]:
            return embedded(tiles()[first : first + BLOCK])

        parts = [self.kept.array(f"{name}-musicnn-{first:03d}", partial(block, first)) for first in self._blocks()]
        return np.concatenate(parts).astype(np.float64)

    def _blocks(self) -> range:
        return range(0, len(self.plans), BLOCK)


def embedded(tiles: Tiles) -> NDArray[np.float32]:
    """Return what musicnn makes of the inverted sound of tiles, (tiles, windows, 200)."""
    embedder = MusicnnEmbedder("msd")
    return np.stack([embedder.embed_audio(invert(tile, SPEC, "fast")[0]) for tile in tiles])


def _two_tiles(plan: TrackPlan) -> Levels:
    signal = prepare_signal(*render_track(plan), SPEC)
    clip = cut_clip(signal, FIRST_FRAME * SPEC.hop_length, 2 * SPEC.width, SPEC)
    levels = encode_clip(clip, SPEC)
    return np.stack(np.split(levels, 2, axis=1))


def _encoded(tiles: Tiles) -> NDArray[np.float32]:
    vae = open_base("mini", ("vae",)).vae
    batches = np.array_split(tiles, -(-len(tiles) // 8))
    return torch.cat([encode(vae, images_of(batch, SPEC.low_at)).mean for batch in batches]).numpy()


def _drawing(lora: Path | None, plans: list[TrackPlan]) -> Callable[[int], NDArray[np.float32]]:
    """Return what draws the block of latents from a track on; the base is opened when it is needed."""
    opened: list[Generator] = []

    def draw(first: int) -> NDArray[np.float32]:
        if not opened:
            opened.append(Generator.open("mini", loras=() if lora is None else (lora,), dtype="fp32"))
        generator = opened[0]
        texts = [f"{ANCHOR}, {plan.captions[0]}" for plan in plans[first : first + BLOCK]]
        seeds = [derive_seed(0, "decoder", plan.identifier) for plan in plans[first : first + BLOCK]]
        jobs = [
            Job(index, text, (TimedText(0.0, text),), negative="", seed=seed)
            for index, (text, seed) in enumerate(zip(texts, seeds))
        ]
        drawer = generator.drawer(jobs, generator.settle(HOW).sampling, lay_out(Length(), SPEC))
        with torch.inference_mode():
            latents = drawer.latents(jobs, seeds) / generator.models.base.vae.config.scaling_factor
        return np.asarray(latents.to(torch.float32).cpu().numpy())

    return draw


def all_tiles(
    folder: Path, kinds: Sequence[Instruments], tracks: int, lora: Path | None, seed: int
) -> Iterator[JudgedTiles]:
    """Yield the tiles for each kind of instruments; the LoRA is for the new ones."""
    for kind in kinds:
        yield JudgedTiles(folder, kind, tracks, lora if kind == "new" else None, seed)

"""Decoders on held-out tiles: `python -m bench decoder`, or beside each other with a refiner behind one or both.

    python -m bench.decoder --vae runs/decoder/vae --lora LORA --folder runs/bench-decoder

Real tiles go through mini's encoder and through each decoder; drawn tiles are made once as latents and decoded by each.
The folder keeps pictures and embeddings under a hash of the decoder, so that a table that was interrupted goes on. Of
known and of new instruments (no part of mini has heard them); choose a decoder on other tiles than these.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.decoder_tiles import GROUPS, SPEC, TRACKS, Instruments, JudgedTiles, Tiles, all_tiles
from bench.table import Table
from sdxl_mel.arrays import Float, Owner, Vectors
from sdxl_mel.metrics.embedders.base import unit_rows
from sdxl_mel.metrics.frechet import distance_between, distance_change
from sdxl_mel.metrics.intervals import Interval, paired_interval, tied_interval
from sdxl_mel.metrics.oracle import load_oracle
from sdxl_mel.metrics.picture_fidelity import mean_square, mel_errors_db, psnr_db
from sdxl_mel.metrics.texture import energy_change_db, modulation_energy
from sdxl_mel.models.base import open_base
from sdxl_mel.models.vae import decode, values_of_images
from sdxl_mel.sound.pixels import dequantise, quantise

FOLDER = Path("runs/bench-decoder")
BATCH = 4


@dataclass(frozen=True)
class Way:
    """A way from unscaled latents (n, 4, height, width) to pictures (n, n_mels, frames, 1); `key` names all of it."""

    name: str
    key: str
    decode: Callable[[Tensor], Tiles]


def way_of_vae(name: str, vae: str | None = None) -> Way:
    """Return mini's own decoder, or that of another VAE."""
    base = open_base("mini", ("vae",), vae=vae)
    return Way(name, base.identity_of("vae")[:12], lambda latents: decoded(base.vae, latents))


@torch.inference_mode()
def decoded(vae: Any, latents: Tensor) -> Tiles:
    """Return the pictures that a VAE makes of unscaled latents."""
    parts = [values_of_images(decode(vae, part), 1, SPEC.low_at) for part in latents.split(BATCH)]
    return quantise(np.concatenate(parts))


def run(
    ways: Sequence[Way] = (),
    folder: Path = FOLDER,
    *,
    tracks: int = TRACKS,
    seed: int = 0,
    lora: Path | None = None,
    kinds: Sequence[Instruments] = tuple(GROUPS),
    real: bool = True,
    drawn: bool = True,
) -> Table:
    """Judge ways to decode beside the first of them, or the shipped decoder alone; `seed` is that of the tracks."""
    chosen = list(ways) or [way_of_vae("VAE as shipped")]
    rows = []
    if real:
        for tiles in all_tiles(folder, kinds, tracks, lora, seed):
            rows += [_real_row(tiles, way, chosen[0]) for way in chosen]
    if drawn:
        for tiles in all_tiles(folder, kinds, tracks, lora, seed):
            if tiles.instruments == "known" or lora is not None:
                rows += [_drawn_row(tiles, way, chosen[0]) for way in chosen]
    return Table(
        title="decoder: pictures from latents",
        header=[
            *("tiles", "decoder", "PSNR dB", "mel error dB", "level bias dB", "texture by band dB"),
            *("FAD paired", "change", "FAD others", "change", "instruments found", "change", "seconds a tile"),
        ],
        rows=rows,
        notes=[
            f"{tracks} held-out tracks of {' and of '.join(kinds)} instruments. Mel error and level bias: mean "
            "absolute and mean difference, cut off 60 dB under the loudest pixel. Texture: energy of changes in time "
            "against the original's, by quarters of Nyquist, slowest first; of drawn tiles against real ones.",
            "FAD: musicnn-msd of sound inverted with `fast`; paired: against the same tiles undecoded, others: against "
            "the tiles that follow them in their tracks (floor: of the undecoded tiles themselves). Of drawn tiles "
            "both are tiles of the tracks whose captions they were drawn for. 95 % jackknife intervals over tracks, "
            "which are left out of all sets at once; changes are against the first row of each kind.",
            "Instruments found: share of tiles in which the oracle of docs/mini_base.md finds all that are asked for.",
        ],
    )


def _real_row(tiles: JudgedTiles, way: Way, first: Way) -> list[str]:
    pictures, seconds = _pictures(tiles, way, "real")
    values, made = dequantise(tiles.real), dequantise(pictures)
    errors = [mel_errors_db(one, other, SPEC) for one, other in zip(values, made)]
    return [
        f"real, {tiles.instruments}",
        way.name,
        f"{psnr_db(mean_square(values, made)):.2f}",
        f"{np.mean([np.abs(error).mean() for error in errors]):.3f}",
        f"{np.mean([error.mean() for error in errors]):+.3f}",
        _by_band(_texture(values, made)),
        *_distances(tiles, way, first, "real"),
        *_found(tiles, way, first, "real"),
        seconds,
    ]


def _drawn_row(tiles: JudgedTiles, way: Way, first: Way) -> list[str]:
    pictures, seconds = _pictures(tiles, way, "drawn")
    texture = _texture(dequantise(tiles.real), dequantise(pictures))
    distances, found = _distances(tiles, way, first, "drawn"), _found(tiles, way, first, "drawn")
    return [f"drawn, {tiles.instruments}", way.name, "", "", "", _by_band(texture), *distances, *found, seconds]


def _pictures(tiles: JudgedTiles, way: Way, kind: str) -> tuple[Tiles, str]:
    """Return what a way makes of the real or the drawn latents, and the seconds a tile where it was made now."""
    latents = tiles.latents if kind == "real" else tiles.drawn
    name, start = _name(tiles, way, kind), time.process_time()
    new = not tiles.kept.path(name).exists()
    pictures: Tiles = tiles.kept.array(name, lambda: way.decode(latents))
    return pictures, f"{(time.process_time() - start) / len(latents):.3f}" if new else ""


def _name(tiles: JudgedTiles, way: Way, kind: str) -> str:
    lora = tiles.lora_key if kind == "drawn" else ""
    return f"{tiles.name}-{kind}{lora}-{way.key}"


def _distances(tiles: JudgedTiles, way: Way, first: Way, kind: str) -> list[str]:
    """Return the FAD to the undecoded tiles and to others, each with its change against the first way."""
    mine, its = (_embeddings(tiles, each, kind) for each in (way, first))
    cells = []
    for undecoded in (tiles.real_embeddings, tiles.other_embeddings):
        cells.append(_told(tied_interval(distance_between, [_owned(mine), _owned(undecoded)], 0), ".4f"))
        change = tied_interval(distance_change, [_owned(its), _owned(mine), _owned(undecoded)], 0)
        cells.append("" if way is first else _told(change, "+.4f"))
    if way is first and kind == "real":
        floor = distance_between(*(_owned(each)[0] for each in (tiles.real_embeddings, tiles.other_embeddings)))
        cells[2] += f", floor {floor:.4f}"
    return cells


def _embeddings(tiles: JudgedTiles, way: Way, kind: str) -> Vectors:
    return tiles.embeddings(_name(tiles, way, kind), lambda: _pictures(tiles, way, kind)[0])


def _owned(embeddings: Vectors) -> tuple[Vectors, Owner]:
    """Return rows of all windows, of length 1 as `evaluate` has them, and the track of each."""
    tracks, windows, dimensions = embeddings.shape
    return unit_rows(embeddings.reshape(-1, dimensions)), np.repeat(np.arange(tracks), windows)


def _found(tiles: JudgedTiles, way: Way, first: Way, kind: str) -> list[str]:
    mine, its = (_right(tiles, each, kind) for each in (way, first))
    return [f"{mine.mean():.3f}", "" if way is first else _told(paired_interval(its, mine), "+.3f")]


def _right(tiles: JudgedTiles, way: Way, kind: str) -> Vectors:
    """Return 1 for each tile in which all instruments are found, else 0."""
    found = load_oracle().found(_pictures(tiles, way, kind)[0][..., 0], tiles.wanted())
    return np.array([float(all(flags)) for flags in found])


def _texture(values: Float, made: Float) -> Vectors:
    return energy_change_db(modulation_energy(values), modulation_energy(made))


def _by_band(change: Any) -> str:
    return " ".join(f"{each:+.1f}" for each in change)


def _told(interval: Interval, digits: str) -> str:
    return f"{interval.value:{digits}} ({interval.low:{digits}} to {interval.high:{digits}})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", action="append", default=[], help="another VAE; repeat for several")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where pictures and embeddings are kept")
    parser.add_argument("--tracks", type=int, default=TRACKS)
    parser.add_argument("--lora", type=Path, help="LoRA for the new instruments; without one none are drawn of them")
    parser.add_argument("--seed", type=int, default=0, help="of the tracks; another one has none of the same")
    parser.add_argument("--instruments", nargs="+", choices=GROUPS, default=list(GROUPS))
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--real", action="store_true", help="real tiles alone")
    alone.add_argument("--drawn", action="store_true", help="drawn tiles alone")
    words = parser.parse_args()
    judged = [way_of_vae("VAE as shipped"), *(way_of_vae(vae, vae) for vae in words.vae)]
    table = run(
        judged,
        words.folder,
        tracks=words.tracks,
        seed=words.seed,
        lora=words.lora,
        kinds=words.instruments,
        real=not words.drawn,
        drawn=not words.real,
    )
    print(table.markdown())

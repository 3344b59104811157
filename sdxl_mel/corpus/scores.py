"""The score bank: public-domain pieces as notes, and which split each piece belongs to."""

import gzip
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

from sdxl_mel.seeding import numpy_generator

PieceSplit = Literal["train", "validation", "test"]
SHARES: dict[PieceSplit, float] = {"test": 0.18, "validation": 0.07}


class Note(NamedTuple):
    """A note: onset and duration in quarter notes, pitch as a MIDI number."""

    onset: float
    duration: float
    pitch: int


@dataclass(frozen=True)
class Piece:
    """A piece: its parts from the top down; one part for a tune, four for a chorale."""

    identifier: str
    title: str
    style: Literal["chorale", "folk"]
    rhythm: str
    mode: Literal["major", "minor"]
    source: str
    transcriber: str
    parts: tuple[tuple[Note, ...], ...]

    @property
    def quarters(self) -> float:
        """Return the length in quarter notes, rounded up to whole ones."""
        return float(-(-max(part[-1].onset + part[-1].duration for part in self.parts) // 1))


@lru_cache(maxsize=1)
def score_bank() -> dict[str, Piece]:
    """Return all pieces by identifier."""
    packed = files("sdxl_mel").joinpath("assets/score_bank.json.gz").read_bytes()
    bank = json.loads(gzip.decompress(packed))
    ticks = bank["ticks"]
    pieces = (
        Piece(
            identifier=piece["id"],
            parts=tuple(tuple(Note(on / ticks, length / ticks, pitch) for on, length, pitch in part) for part in parts),
            **{name: value for name, value in piece.items() if name != "id"},
        )
        for piece in bank["pieces"]
        for parts in [piece.pop("parts")]
    )
    return {piece.identifier: piece for piece in pieces}


@lru_cache(maxsize=1)
def piece_splits() -> dict[str, PieceSplit]:
    """Return the split of every piece: fixed, and in the same shares for chorales and for tunes."""
    splits: dict[str, PieceSplit] = {}
    for style in ("chorale", "folk"):
        names = sorted(name for name, piece in score_bank().items() if piece.style == style)
        order = [names[index] for index in numpy_generator(0, "piece split", style).permutation(len(names))]
        for split, share in SHARES.items():
            count = round(share * len(names))
            splits.update(dict.fromkeys(order[:count], split))
            order = order[count:]
        splits.update(dict.fromkeys(order, "train"))
    return splits


def pieces_of(split: PieceSplit) -> list[Piece]:
    """Return the pieces of a split in the order of their identifiers."""
    return [score_bank()[name] for name, of in sorted(piece_splits().items()) if of == split]

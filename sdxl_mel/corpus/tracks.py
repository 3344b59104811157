"""The corpus: plans of tracks, and the sounds they render to.

A plan is a pure function of (seed, split, index), and each is rendered independently of the others, so processes can
divide them. Pieces are split first, then pairs of instruments: no test piece and no held-out pair is in training.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.corpus.arrangement import arrange, excerpt
from sdxl_mel.corpus.captions import TEMPI, captions_of
from sdxl_mel.corpus.instruments import BASE, INSTRUMENTS, LEFT_OUT, Pair, base_pairs, left_out_pairs
from sdxl_mel.corpus.rendering import HARMONY_GAIN_DB, SAMPLE_RATE, render
from sdxl_mel.corpus.scores import PieceSplit, pieces_of, score_bank
from sdxl_mel.seeding import numpy_generator

Split = Literal["train", "validation", "test-seen", "test-unseen", "regularization"]
Group = Literal["base", "left-out"]

PIECES: dict[Split, PieceSplit] = {
    "train": "train",
    "validation": "validation",
    "test-seen": "test",
    "test-unseen": "test",
    "regularization": "train",
}
TRANSPOSITIONS = range(-4, 4)
SOLO_SHARE = 0.2
LOUDER_DB = 2.0
"""Largest gain of the first of two instruments, up or down."""


@dataclass(frozen=True)
class TrackPlan:
    """All that determines a track. `start` is in quarter notes, `balance_db` is the first instrument's gain."""

    identifier: str
    split: Split
    piece: str
    instruments: tuple[str, ...]
    tempo: str
    bpm: float
    transposition: int
    start: float
    balance_db: float
    seconds: float
    seed: int

    @property
    def captions(self) -> tuple[str, ...]:
        """Return the captions of the track."""
        return captions_of(score_bank()[self.piece], self.instruments, self.tempo)


def plan_tracks(
    split: Split,
    count: int,
    seconds: float = 12.0,
    *,
    group: Group = "base",
    seed: int = 0,
    solo_share: float = SOLO_SHARE,
    pieces: PieceSplit | None = None,
) -> list[TrackPlan]:
    """Return `count` plans of a split. The first n of more plans are the plans of n.

    `group` "left-out" puts one of the instruments that the mini base was not trained on into every track. The split
    "regularization" holds what it was trained on: solos of base instruments, and with the group "left-out" their pairs
    too, so that a LoRA for new instruments still distinguishes the old ones. "test-unseen" holds held-out pairs only
    (with the group "left-out": the pairs that "train" of that group does not have). `pieces` draws from another split's
    pieces: a judge may learn held-out pairs, from training pieces.
    """
    names = [piece.identifier for piece in pieces_of(pieces or PIECES[split])]
    return [
        _plan(split, index, seconds, names, group=group, seed=seed, solo_share=solo_share) for index in range(count)
    ]


def render_track(plan: TrackPlan) -> tuple[Float, int]:
    """Return the sound of a plan, float32 (2, n), and its sample rate."""
    piece = score_bank()[plan.piece]
    players = [INSTRUMENTS[name] for name in plan.instruments]
    quarters = plan.seconds * plan.bpm / 60.0
    notes = [
        excerpt(part, piece.quarters, plan.start, quarters) for part in arrange(piece, players, plan.transposition)
    ]
    harmony = HARMONY_GAIN_DB if piece.style == "chorale" else 0.0
    gains = [plan.balance_db, harmony - plan.balance_db]
    generator = numpy_generator(plan.seed, "velocities", plan.identifier)
    return render(list(zip(players, notes, gains)), plan.bpm, plan.seconds, generator), SAMPLE_RATE


def _plan(
    split: Split, index: int, seconds: float, pieces: list[str], *, group: Group, seed: int, solo_share: float
) -> TrackPlan:
    generator = numpy_generator(seed, "track", split, group, index)
    tempo = str(generator.choice(list(TEMPI)))
    piece = score_bank()[pieces[int(generator.integers(len(pieces)))]]
    return TrackPlan(
        identifier=f"{group}-{split}-{seed}-{index:05d}",
        split=split,
        piece=piece.identifier,
        instruments=_instruments(split, group, solo_share, generator),
        tempo=tempo,
        bpm=round(float(generator.uniform(*TEMPI[tempo])), 1),
        transposition=int(generator.choice(list(TRANSPOSITIONS))),
        start=float(generator.integers(int(piece.quarters))),
        balance_db=round(float(generator.uniform(-LOUDER_DB, LOUDER_DB)), 1),
        seconds=seconds,
        seed=seed,
    )


def _instruments(split: Split, group: Group, solo_share: float, generator: np.random.Generator) -> tuple[str, ...]:
    known = split == "regularization"
    solo = bool(generator.random() < solo_share) and split != "test-unseen"
    if solo or (known and group == "base"):
        names = LEFT_OUT if group == "left-out" and not known else BASE
        return (str(generator.choice(list(names))),)
    pairs = pairs_of(split, "base" if known else group)
    first, second = pairs[int(generator.integers(len(pairs)))]
    return (first, second) if generator.random() < 0.5 else (second, first)


def pairs_of(split: Split, group: Group) -> list[Pair]:
    """Return the pairs of instruments that a split draws from."""
    if group == "base":
        return base_pairs(held_out=split == "test-unseen")
    return [pair for index, pair in enumerate(left_out_pairs()) if (index % 5 == 4) == (split == "test-unseen")]

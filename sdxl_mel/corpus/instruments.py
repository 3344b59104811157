"""The instruments of the corpus, their ranges, and which pairs and instruments are held out of training."""

from dataclasses import dataclass
from itertools import combinations

from sdxl_mel.seeding import numpy_generator

HELD_OUT_PAIRS = 15
MOST_HELD_OUT_PER_INSTRUMENT = 3


@dataclass(frozen=True)
class Instrument:
    """A General MIDI instrument: program number from 0, range in MIDI pitches, gain in dB to common loudness.

    The gains bring eight notes at one velocity to -33 LUFS each with TimGM6mb.
    """

    name: str
    program: int
    lowest: int
    highest: int
    gain_db: float


BASE = {
    instrument.name: instrument
    for instrument in (
        Instrument("piano", 0, 36, 96, 2.5),
        Instrument("harpsichord", 6, 36, 84, 0.8),
        Instrument("vibraphone", 11, 53, 89, -6.6),
        Instrument("marimba", 12, 45, 89, 2.5),
        Instrument("church organ", 19, 36, 90, -1.6),
        Instrument("accordion", 21, 48, 88, -3.2),
        Instrument("guitar", 24, 40, 79, -3.5),
        Instrument("violin", 40, 55, 91, -7.4),
        Instrument("cello", 42, 36, 72, -6.6),
        Instrument("harp", 46, 36, 91, -7.1),
        Instrument("trumpet", 56, 55, 82, -3.5),
        Instrument("oboe", 68, 58, 86, -5.1),
        Instrument("clarinet", 71, 50, 86, -5.5),
        Instrument("flute", 73, 60, 93, -7.7),
    )
}
"""The instruments that the mini base is trained on."""

LEFT_OUT = {
    instrument.name: instrument
    for instrument in (
        Instrument("harmonica", 22, 60, 88, -4.5),
        Instrument("pan flute", 75, 60, 88, -4.1),
        Instrument("sitar", 104, 48, 77, -0.3),
        Instrument("banjo", 105, 48, 80, -2.1),
    )
}
"""Instruments in no training data of the mini base, for a LoRA to learn."""

INSTRUMENTS = BASE | LEFT_OUT

Pair = tuple[str, str]


def base_pairs(*, held_out: bool) -> list[Pair]:
    """Return the pairs of base instruments, names in the table's order, that are held out of training or are not."""
    hidden = _held_out_pairs()
    return [pair for pair in combinations(BASE, 2) if (pair in hidden) == held_out]


def left_out_pairs() -> list[Pair]:
    """Return each left-out instrument with each base instrument."""
    return [(new, known) for new in LEFT_OUT for known in BASE]


def _held_out_pairs() -> set[Pair]:
    """Draw pairs so that every instrument is in at least one and at most three: each still plays with ten others."""
    pairs = list(combinations(BASE, 2))
    order = numpy_generator(0, "held-out pairs").permutation(len(pairs))
    count = dict.fromkeys(BASE, 0)
    chosen: set[Pair] = set()
    for most in range(1, MOST_HELD_OUT_PER_INSTRUMENT + 1):
        for index in order:
            pair = pairs[index]
            if len(chosen) < HELD_OUT_PAIRS and pair not in chosen and all(count[name] < most for name in pair):
                chosen.add(pair)
                for name in pair:
                    count[name] += 1
    return chosen

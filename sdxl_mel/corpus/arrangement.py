"""Arrangement: a piece for one or two instruments, in their ranges; every note is from the score."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from sdxl_mel.corpus.instruments import Instrument
from sdxl_mel.corpus.scores import Note, Piece

OCTAVE = 12


def arrange(piece: Piece, instruments: Sequence[Instrument], transposition: int) -> list[list[Note]]:
    """Return the notes of each instrument, transposed by semitones and moved by octaves into its range.

    In a chorale the first instrument plays the soprano and the second the other voices; a tune is played by both, in
    unison or octaves. A single instrument plays all parts.
    """
    if len(instruments) == 1:
        parts = [piece.parts]
    elif piece.style == "chorale":
        parts = [piece.parts[:1], piece.parts[1:]]
    else:
        parts = [piece.parts, piece.parts]
    return [
        [note for voice in voices for note in _into_range(voice, instrument, transposition)]
        for voices, instrument in zip(parts, instruments)
    ]


def excerpt(notes: Iterable[Note], length: float, start: float, duration: float) -> list[Note]:
    """Return the notes of `duration` quarters from `start` of a piece of `length` quarters that repeats endlessly.

    Onsets are counted from `start`; notes are trimmed to the excerpt.
    """
    ordered = sorted(notes)
    trimmed = (
        Note(begin, end - begin, note.pitch)
        for note in _repeated(ordered, length, start + duration)
        for begin, end in [(max(note.onset - start, 0.0), min(note.onset - start + note.duration, duration))]
    )
    return [note for note in trimmed if note.duration > 0]


def _repeated(notes: list[Note], length: float, end: float) -> Iterator[Note]:
    for turn in count():
        if turn * length >= end:
            return
        for note in notes:
            yield note._replace(onset=note.onset + turn * length)


def _into_range(voice: Iterable[Note], instrument: Instrument, transposition: int) -> list[Note]:
    moved = [note._replace(pitch=note.pitch + transposition) for note in voice]
    shift = _octave_shift([note.pitch for note in moved], instrument)
    return [note._replace(pitch=_folded(note.pitch + shift, instrument)) for note in moved]


def _octave_shift(pitches: list[int], instrument: Instrument) -> int:
    """Return the smallest shift in whole octaves that leaves the fewest pitches out of range."""

    def outside(shift: int) -> int:
        return sum(not instrument.lowest <= pitch + shift <= instrument.highest for pitch in pitches)

    shifts = (octaves * OCTAVE for octaves in range(-4, 5))
    return min(shifts, key=lambda shift: (outside(shift), abs(shift), shift))


def _folded(pitch: int, instrument: Instrument) -> int:
    """Return the pitch moved by octaves into the range, which is always wider than an octave."""
    while pitch < instrument.lowest:
        pitch += OCTAVE
    while pitch > instrument.highest:
        pitch -= OCTAVE
    return pitch

"""Render the short clips of tests/fixtures: `python tools/render_clips.py`; needs the extra `demo`.

The music is composed here, note by note, and belongs to this project. The clips are what a codec finds hard, each in
its own way: sustained tones, decaying notes, a dense band across the stereo width, drums, and bare transients.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import midirenderer
import numpy as np
import pretty_midi
import soundfile
import soxr
from numpy.typing import NDArray

from sdxl_mel.seeding import numpy_generator

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
SAMPLE_RATE = 44100
SECONDS = 6.0
PEAK = 0.7
BEAT = 0.5
CHORDS = ((57, 60, 64, 69), (53, 57, 60, 65), (55, 60, 64, 67), (55, 59, 62, 67))
"""A minor, F, C over G, G: a bar each."""


class Part(NamedTuple):
    """An instrument: General MIDI program, place 0 (left) to 127, loudness; notes: (pitch, start, length) in beats."""

    program: int
    pan: int
    volume: int
    notes: list[tuple[int, float, float]]
    drums: bool = False


def chords(octave: int, length: float) -> list[tuple[int, float, float]]:
    """Return the four chords, one a bar of three beats."""
    return [(pitch + 12 * octave, 3.0 * bar, length) for bar, chord in enumerate(CHORDS) for pitch in chord]


def arpeggio(octave: int, step: float) -> list[tuple[int, float, float]]:
    """Return the chords broken upwards."""
    count = int(3.0 / step)
    return [
        (chord[index % 4] + 12 * octave, 3.0 * bar + index * step, 1.5 * step)
        for bar, chord in enumerate(CHORDS)
        for index in range(count)
    ]


def beat() -> list[tuple[int, float, float]]:
    """Return a drum pattern: kick, snare, hi-hat in eighths, a crash at the start."""
    pattern = [(49, 0.0, 1.0)]
    for step in range(24):
        place = step / 2
        pattern.append((42 if step % 4 != 3 else 46, place, 0.25))
        if step % 6 in (0, 3):
            pattern.append((36, place, 0.25))
        if step % 6 == 4:
            pattern.append((38, place, 0.25))
    return pattern


def pieces() -> Iterator[tuple[str, list[Part]]]:
    """Yield the name and the parts of each rendered clip."""
    yield "strings", [Part(48, 40, 100, chords(0, 3.0)), Part(19, 90, 80, chords(1, 3.0))]
    yield (
        "piano",
        [
            Part(0, 64, 110, arpeggio(0, 0.5)),
            Part(0, 50, 90, [(c[0] - 24, 3.0 * i, 3.0) for i, c in enumerate(CHORDS)]),
        ],
    )
    yield (
        "band",
        [
            Part(
                33, 64, 110, [(chord[0] - 24, 3.0 * bar + b, 0.9) for bar, chord in enumerate(CHORDS) for b in range(3)]
            ),
            Part(30, 20, 70, chords(0, 2.8)),
            Part(11, 105, 100, arpeggio(1, 0.25)),
            Part(61, 85, 80, chords(1, 1.0)),
            Part(0, 64, 100, beat(), drums=True),
        ],
    )
    yield "drums", [Part(0, 64, 110, beat(), drums=True)]


def render(parts: list[Part]) -> NDArray[np.float32]:
    """Return (n, 2) samples of SECONDS at SAMPLE_RATE."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=120)
    for part in parts:
        track = pretty_midi.Instrument(part.program, is_drum=part.drums)
        track.control_changes += [
            pretty_midi.ControlChange(7, part.volume, 0.0),
            pretty_midi.ControlChange(10, part.pan, 0.0),
        ]
        track.notes += [
            pretty_midi.Note(96, pitch, start * BEAT, (start + length) * BEAT) for pitch, start, length in part.notes
        ]
        midi.instruments.append(track)
    buffer = io.BytesIO()
    midi.write(buffer)
    font = (Path(pretty_midi.__file__).parent / "TimGM6mb.sf2").read_bytes()
    samples, rate = soundfile.read(io.BytesIO(midirenderer.render_wave_from(font, buffer.getvalue())), dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return samples[: int(SECONDS * SAMPLE_RATE)]


def transients() -> NDArray[np.float32]:
    """Return (n, 1): clicks, short noises and a rising tone, one after another and together."""
    count = int(SECONDS * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    generator = numpy_generator(0, "transients")
    sound = 0.1 * np.sin(2 * np.pi * 100.0 * SECONDS / np.log(80.0) * (80.0 ** (time / SECONDS) - 1))
    for second in np.arange(0.25, SECONDS, 0.5):
        start = int(second * SAMPLE_RATE)
        burst = generator.standard_normal(2000) * np.exp(-np.arange(2000) / 200.0)
        sound[start : start + 2000] += 0.4 * burst
        sound[start + 11025 : start + 11027] += 0.9
    return sound[:, None].astype(np.float32)


def main() -> None:
    """Write every clip, as 16-bit FLAC at a peak of PEAK."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rendered = [(name, render(parts)) for name, parts in pieces()]
    for name, samples in [*rendered, ("transients", transients())]:
        scaled = samples / np.abs(samples).max() * PEAK
        soundfile.write(FOLDER / f"{name}.flac", scaled, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()

"""Notes to sound: General MIDI with a soundfont, by midirenderer (Rust, no system library)."""

import io
from functools import lru_cache
from importlib.resources import files

import numpy as np
import soundfile

from sdxl_mel.arrays import Float
from sdxl_mel.corpus.instruments import Instrument
from sdxl_mel.corpus.scores import Note
from sdxl_mel.errors import InputError

SAMPLE_RATE = 48000
VELOCITY, VELOCITY_SPREAD = 90, 10
HARMONY_GAIN_DB = -3.0
"""Of the second instrument of a chorale, which plays three voices, so that they do not mask the first."""

Part = tuple[Instrument, list[Note], float]
"""An instrument, its notes (in quarters from the start) and a gain in dB."""


def render(parts: list[Part], bpm: float, seconds: float, generator: np.random.Generator) -> Float:
    """Return exactly `seconds` of stereo sound, (2, n) at 48 kHz; velocities vary by at most VELOCITY_SPREAD."""
    wave = _midirenderer().render_wave_from(_soundfont(), _midi(parts, bpm, generator))
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        raise InputError(
            f"midirenderer renders at {rate} Hz, this corpus expects {SAMPLE_RATE}; install another version"
        )
    out = np.zeros((2, round(seconds * SAMPLE_RATE)), np.float32)
    kept = min(len(samples), out.shape[1])
    out[:, :kept] = samples[:kept].T
    return out


def _midi(parts: list[Part], bpm: float, generator: np.random.Generator) -> bytes:
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(initial_tempo=bpm, resolution=480)
    seconds = 60.0 / bpm
    for instrument, notes, gain_db in parts:
        track = pretty_midi.Instrument(instrument.program, name=instrument.name)
        track.control_changes.append(pretty_midi.ControlChange(7, _volume(instrument.gain_db + gain_db), 0.0))
        spread = generator.integers(-VELOCITY_SPREAD, VELOCITY_SPREAD + 1, size=len(notes))
        for note, change in zip(notes, spread):
            start, end = note.onset * seconds, (note.onset + note.duration) * seconds
            track.notes.append(pretty_midi.Note(VELOCITY + int(change), note.pitch, start, end))
        midi.instruments.append(track)
    buffer = io.BytesIO()
    midi.write(buffer)
    return buffer.getvalue()


def _volume(gain_db: float) -> int:
    """Return the value of controller 7 (volume) for a gain: in General MIDI amplitude is its square."""
    return min(round(100 * 10 ** (gain_db / 40)), 127)


@lru_cache(maxsize=1)
def _soundfont() -> bytes:
    try:
        return files("pretty_midi").joinpath("TimGM6mb.sf2").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(f"the demo corpus needs pretty_midi and its soundfont ({error}); {INSTALL}") from error


INSTALL = 'install them with: pip install "sdxl-mel[demo]"'


def _midirenderer():  # type: ignore[no-untyped-def]  # a compiled module without types
    try:
        import midirenderer
    except ModuleNotFoundError as error:
        raise InputError(f"the demo corpus needs midirenderer, which is not installed; {INSTALL}") from error
    return midirenderer

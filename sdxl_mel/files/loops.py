"""What a sampler wants to know of a loop, in a file beside it: its tempo, its beats and its bars."""

from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.arrays import Levels
from sdxl_mel.files.atomic import write_json
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import beat_frames, onset_envelope

BEATS_PER_BAR = 4


def loop_file(sound: Path) -> Path:
    """Return the file beside a loop that describes it."""
    return sound.with_name(f"{sound.stem}-loop.json")


def write_loop(sound: Path, levels: Levels, spec: MelSpec) -> None:
    """Describe the loop of a picture beside its sound, in seconds: a loop is a whole number of beats.

    The beat is that of the onsets, by autocorrelation; a bar is taken for four of them.
    """
    per_second = spec.sample_rate / spec.hop_length
    seconds = levels.shape[1] / per_second
    period = beat_frames(onset_envelope(dequantise(levels)), per_second)
    beats = max(1, round(levels.shape[1] / period))
    moments: list[JsonValue] = [round(beat * seconds / beats, 6) for beat in range(beats)]
    described: dict[str, JsonValue] = {"seconds": seconds, "tempo_bpm": round(60 * beats / seconds, 3)}
    described |= {"beats": moments, "bars": moments[::BEATS_PER_BAR], "beats_per_bar": BEATS_PER_BAR}
    write_json(loop_file(sound), described)

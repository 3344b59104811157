"""stitch beside other ways to join tiles: pixel blending, the maximum, and waveform crossfades of per-tile sound."""

from collections.abc import Callable, Iterator

import numpy as np

from bench.table import Table
from sdxl_mel.arrays import Float, Levels
from sdxl_mel.corpus.tracks import plan_tracks, render_track
from sdxl_mel.metrics.codec_fidelity import multi_resolution_sc_db
from sdxl_mel.sound.blend import blend, cut_starts, join, seam_weights
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.melspec import PRESETS, MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values, quantise

SPEC = PRESETS["mini"]
TRACKS = 4
FRAMES = 560
OVERLAPS = (32, 64)
BORDER = 16
"""Frames of the track before the first tile, so that its margin is real sound."""


def run() -> Table:
    """Measure both kinds of join: tiles cut from one recording, and tiles of two recordings."""
    signals = [prepare_signal(*render_track(plan), SPEC) for plan in plan_tracks("test-unseen", TRACKS)]
    cut = [_cut_errors(signal, overlap) for signal in signals for overlap in OVERLAPS]
    unlike = [_unlike_gains(one, two) for one, two in zip(signals, signals[1:])]
    rows = []
    for name in unlike[0]:
        source = name if name in cut[0] else "stitch"
        inside, outside, level = np.mean([errors[source] for errors in cut], axis=0)
        gains = [gain[name] for gain in unlike]
        rows.append(
            [name, f"{inside:.1f}", f"{outside:.1f}", f"{level:+.2f}", f"{min(gains):+.2f} .. {max(gains):+.2f}"]
        )
    return Table(
        title="stitch: joining tiles",
        header=[
            "method",
            "cut tiles: error in the overlaps, dB",
            "error elsewhere, dB",
            "level in the overlaps, dB",
            "unlike tiles: energy mid-seam, dB",
        ],
        rows=rows,
        notes=[
            f"{TRACKS} rendered tracks, preset mini: tiles of {SPEC.width} frames, overlaps of {OVERLAPS}. Error "
            "is the multi-resolution spectral convergence against the original sound, lower is better.",
            "Pictures of cut tiles agree in the overlap, so every way to blend pictures gives stitch's sound there.",
            "Energy mid-seam: of the join of tiles of two tracks, beside the mean energy of both; 0 is right.",
        ],
    )


def _cut_errors(signal: Float, overlap: int) -> dict[str, tuple[float, float, float]]:
    """Return (error inside, error outside, level inside), dB, of each method on tiles cut from one recording."""
    hop = SPEC.hop_length
    whole = encode_clip(cut_clip(signal, BORDER * hop, FRAMES, SPEC), SPEC)
    original = signal[:, BORDER * hop : (BORDER + FRAMES) * hop]
    starts = cut_starts(FRAMES, SPEC.width, overlap)
    tiles = [whole[:, start : start + SPEC.width] for start in starts]
    sounds = [invert(tile, SPEC) for tile in tiles]
    joined = {
        "stitch": invert(join(tiles, [overlap] * (len(tiles) - 1), SPEC), SPEC),
        "tile by tile, linear crossfade": _crossfaded(sounds, starts, overlap, _linear),
        "tile by tile, equal-power crossfade": _crossfaded(sounds, starts, overlap, _equal_power),
    }
    return {name: _errors(original, sound, starts, overlap) for name, sound in joined.items()}


def _errors(original: Float, sound: Float, starts: list[int], overlap: int) -> tuple[float, float, float]:
    hop = SPEC.hop_length
    inside = [slice(start * hop, (start + overlap) * hop) for start in starts[1:]]
    outside = [slice(0, inside[0].start), *(slice(a.stop, b.start) for a, b in zip(inside, inside[1:]))]

    def error(pieces: list[slice]) -> float:
        return float(np.mean([multi_resolution_sc_db(original[:, piece], sound[:, piece]) for piece in pieces]))

    def power(samples: Float) -> float:
        return sum(float(np.square(samples[:, piece]).sum()) for piece in inside)

    return error(inside), error(outside), 10 * np.log10(power(sound) / power(original))


def _crossfaded(sounds: list[Float], starts: list[int], overlap: int, fade: Callable[[int], Float]) -> Float:
    hop = SPEC.hop_length
    rise = fade(overlap * hop)
    total = np.zeros((1, FRAMES * hop), np.float32)
    for index, (sound, start) in enumerate(zip(sounds, starts)):
        faded = sound.copy()
        if index > 0:
            faded[:, : len(rise)] *= rise
        if index < len(sounds) - 1:
            faded[:, -len(rise) :] *= rise[::-1]
        total[:, start * hop : start * hop + faded.shape[1]] += faded
    return total


def _linear(count: int) -> Float:
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def _equal_power(count: int) -> Float:
    return np.sin(_linear(count) * np.pi / 2).astype(np.float32)


def _unlike_gains(one: Float, two: Float) -> dict[str, float]:
    """Return the energy in dB in the middle of each method's join of two recordings, beside the mean of both."""
    overlap, hop = OVERLAPS[-1], SPEC.hop_length
    first, second = (encode_clip(cut_clip(signal, BORDER * hop, overlap, SPEC), SPEC) for signal in (one, two))
    middle = slice(overlap // 4, -overlap // 4)
    expected = (_energy(first[:, middle], SPEC) + _energy(second[:, middle], SPEC)) / 2
    pictures = dict(_blended(first, second))
    gains = {name: 10 * np.log10(_energy(levels[:, middle], SPEC) / expected) for name, levels in pictures.items()}
    waves = [invert(levels, SPEC) for levels in (first, second)]
    inner = slice(middle.start * hop, middle.stop * hop)
    mean_power = np.mean([np.square(wave[:, inner]).mean() for wave in waves])
    for name, fade in (("linear", _linear), ("equal-power", _equal_power)):
        rise = fade(overlap * hop)
        mixed = waves[0] * rise[::-1] + waves[1] * rise
        gains[f"tile by tile, {name} crossfade"] = 10 * np.log10(np.square(mixed[:, inner]).mean() / mean_power)
    return {name: float(gain) for name, gain in gains.items()}


def _blended(first: Levels, second: Levels) -> Iterator[tuple[str, Levels]]:
    weights = seam_weights(first.shape[1])
    w = weights[:, None]
    a, b = dequantise(first), dequantise(second)
    yield "stitch", blend(first, second, weights, SPEC)
    yield "blend pixels", quantise((1 - w) * a + w * b)
    yield "maximum", np.maximum(first, second)


def _energy(levels: Levels, spec: MelSpec) -> float:
    return float(np.square(mel_of_values(dequantise(levels), spec)).sum())

"""Sounds that several tests share: rendered fixtures and tones."""

from pathlib import Path

import numpy as np

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.files.audio import read_audio
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import MelSpec

FIXTURES = Path(__file__).parent / "fixtures"
MUSIC = ("strings", "piano", "band", "drums", "transients")


def clip(name: str, spec: MelSpec, frames: int, start: int = 0) -> Float:
    """Return what `encode_clip` takes, of a fixture."""
    samples, rate = read_audio(FIXTURES / f"{name}.flac")
    return cut_clip(prepare_signal(samples, rate, spec), start, frames, spec)


def picture(name: str, spec: MelSpec, frames: int, start: int = 0) -> Levels:
    """Return the levels of a fixture."""
    return encode_clip(clip(name, spec, frames, start), spec)


def inner(samples: Float, spec: MelSpec) -> Float:
    """Return a clip without its margins."""
    return samples[:, margin(spec) : samples.shape[-1] - margin(spec)]


def tone(hz: float, seconds: float, sample_rate: int, amplitude: float = 0.2) -> Float:
    """Return (1, n) samples of a sine."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * hz * time + 0.3)).astype(np.float32)[None]


def frequency(samples: Float, sample_rate: int) -> float:
    """Return the frequency in Hz of the strongest partial, from a parabola through the peak of a long FFT."""
    size = 1 << 19
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size), size))
    peak = int(spectrum.argmax())
    low, middle, high = np.log(spectrum[peak - 1 : peak + 2])
    return float((peak + 0.5 * (low - high) / (low - 2 * middle + high)) * sample_rate / size)

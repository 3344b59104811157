"""Synthetic music for the tests of `prepare`: different for every seed, never silent, never clipped."""

from pathlib import Path

import numpy as np
import soundfile

from sdxl_mel.seeding import numpy_generator

SAMPLE_RATE = 16000
SUBTYPES = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS", ".opus": "OPUS", ".mp3": "MPEG_LAYER_III"}
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".opus": "OGG", ".mp3": "MP3"}


def melody(seed: int, seconds: float = 7.0, channels: int = 1) -> np.ndarray:
    """Return decaying tones over faint noise, (channels, n) float32 at SAMPLE_RATE."""
    draw = numpy_generator(seed, "melody")
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.01 * draw.standard_normal((channels, times.size))
    for _ in range(int(3 * seconds)):
        start, tone, decay = draw.uniform(-0.5, seconds), draw.uniform(100, 4000), draw.uniform(0.3, 1.5)
        shape = np.where(times > start, np.exp(-np.clip(times - start, 0, None) / decay), 0.0)
        sound += shape * np.sin(2 * np.pi * tone * times) * draw.uniform(0.2, 1.0, (channels, 1))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def write_music(path: Path, seed: int, seconds: float = 7.0, channels: int = 1) -> Path:
    """Write a melody in the format of its extension."""
    return write_samples(path, melody(seed, seconds, channels))


def write_samples(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype, container = SUBTYPES[path.suffix], FORMATS[path.suffix]
    soundfile.write(path, samples.T, SAMPLE_RATE, format=container, subtype=subtype)
    return path


def write_folder(folder: Path, captions: dict[str, str], seconds: float = 7.0) -> Path:
    """Write one melody with a side-car caption for every name."""
    for seed, (name, caption) in enumerate(captions.items()):
        path = write_music(folder / name, seed, seconds)
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder

"""Simulated embeddings with the falling spectrum of real ones, and synthetic sounds."""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000


def units(count: int, width: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Return unit rows whose covariance has eigenvalues i^-1.2 around a common direction."""
    generator = np.random.default_rng(seed)
    scales = np.arange(1, width + 1) ** -0.6
    rows = generator.standard_normal((count, width)) * scales
    rows[:, 0] += 2.0
    rows[:, 1] += shift
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tone(frequency: float, seconds: float = 6.0, level: float = 0.3) -> NDArray[np.float32]:
    """Return a sine."""
    return (level * np.sin(2 * np.pi * frequency * _times(seconds))).astype(np.float32)


def chord(roots: tuple[float, ...], seconds: float = 6.0) -> NDArray[np.float32]:
    """Return decaying harmonic tones, struck twice a second: something like a piano."""
    times = _times(seconds)
    envelope = np.exp(-4.0 * (times % 0.5))
    voices = [np.sin(2 * np.pi * root * k * times) / k**1.5 for root in roots for k in range(1, 6)]
    return (0.15 * envelope * np.sum(voices, axis=0)).astype(np.float32)


def drums(seconds: float = 6.0, seed: int = 0, bass: bool = False, tempo: float = 120.0) -> NDArray[np.float32]:
    """Return kick, snare and hats, with a bass line if asked."""
    generator = np.random.default_rng(seed)
    out = np.zeros(int(seconds * SAMPLE_RATE))
    for beat, start in enumerate(np.arange(0.0, seconds, 30.0 / tempo)):
        first = int(start * SAMPLE_RATE)
        times = np.arange(min(int(0.2 * SAMPLE_RATE), len(out) - first)) / SAMPLE_RATE
        hit = 0.2 * generator.standard_normal(len(times)) * np.exp(-times * 80)
        if beat % 4 == 0:
            hit += 0.8 * np.sin(2 * np.pi * (50 * times + 2 * (1 - np.exp(-times * 30)))) * np.exp(-times * 18)
        if beat % 4 == 2:
            hit += 0.5 * generator.standard_normal(len(times)) * np.exp(-times * 20)
        out[first : first + len(times)] += hit
    if bass:
        times = _times(seconds)
        notes = np.array([55.0, 55.0, 65.4, 49.0])[(times * tempo / 60).astype(int) % 4]
        out += 0.3 * np.sign(np.sin(2 * np.pi * np.cumsum(notes) / SAMPLE_RATE))
    return out.astype(np.float32)


def noise(seconds: float = 6.0, seed: int = 0, level: float = 0.2) -> NDArray[np.float32]:
    """Return white noise."""
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)


def _times(seconds: float) -> NDArray[np.float64]:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE

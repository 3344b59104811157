"""Energies of changes in time: each lands in the band of its speed, and twice the change is 6 dB."""

import numpy as np
import pytest

from sdxl_mel.metrics.texture import energy_change_db, modulation_energy


def waves(speed: float, size: float = 0.1) -> np.ndarray:
    """Return a picture (8, 256, 1) of rows that change `speed` times a frame."""
    phases = np.linspace(0, 3, 8)[:, None]
    return (0.5 + size * np.sin(2 * np.pi * speed * np.arange(256) + phases))[..., None].astype(np.float32)


@pytest.mark.parametrize(("speed", "band"), [(0.05, 0), (0.2, 1), (0.3, 2), (0.45, 3)])
def test_a_change_lies_in_the_band_of_its_speed(speed: float, band: int) -> None:
    energy = modulation_energy(waves(speed))
    assert energy.argmax() == band
    assert energy[band] > 1e3 * np.delete(energy, band).max()


def test_twice_the_change_is_six_decibels_in_every_band() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.05, (2, 16, 256, 1)).astype(np.float32)
    louder = 0.5 + 2 * (noise - 0.5)
    np.testing.assert_allclose(energy_change_db(*map(modulation_energy, (noise, louder))), 6.02, atol=0.01)


def test_a_level_is_no_change_and_still_pictures_compare() -> None:
    flat = np.full((4, 64, 1), 0.7, np.float32)
    assert modulation_energy(flat).max() < 1e-9
    assert (energy_change_db(modulation_energy(flat), modulation_energy(flat * 0.5)) == 0).all()


def test_white_noise_fills_all_bands_alike() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (200, 256, 1)).astype(np.float32)
    energy = modulation_energy(noise)
    np.testing.assert_allclose(energy / energy.mean(), 1, atol=0.05)

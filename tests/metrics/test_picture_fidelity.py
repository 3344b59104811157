"""Errors between pictures: zero for equal ones, known for known differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.metrics.picture_fidelity import (
    FLOOR_DB,
    band_edges_hz,
    mean_square,
    mel_convergence_db,
    mel_errors_db,
    psnr_db,
)
from sdxl_mel.sound.encoding import cut_clip, mel_spectrogram
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.sound.pixels import values_of

SPEC = PRESETS["mini"]


def loud(decibels: float) -> np.ndarray:
    """Return the value of a mel amplitude `decibels` under the reference."""
    return values_of(np.full((8, 4, 1), 0.5 * 10 ** (decibels / 20), dtype=np.float32), SPEC)


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_a_change_of_level_is_found(one: float, other: float) -> None:
    np.testing.assert_allclose(mel_errors_db(loud(one), loud(other), SPEC), other - one, atol=0.01)


def test_what_lies_under_the_floor_does_not_count() -> None:
    target = loud(0.0).copy()
    target[0] = loud(-FLOOR_DB - 5)[0]
    other = target.copy()
    other[0] = 0.0
    assert np.abs(mel_errors_db(target, other, SPEC)).max() == 0


def test_psnr_of_half_a_level() -> None:
    assert psnr_db(mean_square(np.zeros(4, np.float32), np.full(4, 0.1, np.float32))) == pytest.approx(20.0, abs=1e-5)
    assert psnr_db(0.0) == np.inf


def test_a_sound_has_its_own_mel_spectrogram() -> None:
    time = np.arange(64 * SPEC.hop_length, dtype=np.float32) / SPEC.sample_rate
    sound = 0.1 * np.sin(2 * np.pi * 440 * time)[None].astype(np.float32)
    values = values_of(mel_spectrogram(cut_clip(sound, 0, 64, SPEC), SPEC), SPEC)
    assert mel_convergence_db(values, sound, SPEC) < -80
    assert mel_convergence_db(values, sound * 0, SPEC) == pytest.approx(0.0, abs=1e-6)
    assert mel_convergence_db(values, sound / 2, SPEC) == pytest.approx(-6.02, abs=0.01)


def test_band_edges_rise_from_fmin_to_fmax() -> None:
    for spec in PRESETS.values():
        edges = band_edges_hz(spec, 8)
        assert len(edges) == 9 and (np.diff(edges) > 0).all()
        assert (edges[0], edges[-1]) == (spec.fmin, spec.fmax)

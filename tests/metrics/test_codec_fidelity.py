"""The signal metrics on sounds whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.consistency import self_consistency_db, spectral_convergence_db
from sdxl_mel.metrics.codec_fidelity import (
    channel_correlation,
    fidelity,
    level_matched,
    log_spectral_distance_db,
    mel_l1_db,
    mono_sum_level_db,
    multi_resolution_sc_db,
    onset_correlation,
    pixel_rmse,
)
from sdxl_mel.sound.encoding import encode_clip
from sdxl_mel.sound.melspec import PRESETS
from tests.sounds import clip, inner

RATE = 16000
MINI = PRESETS["mini"]


def noise(channels: int = 1, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, RATE)) * 0.1).astype(np.float32)


@given(error=st.floats(0.001, 2))
def test_spectral_convergence_by_hand(error: float) -> None:
    target = np.ones((5, 7), dtype=np.float32)
    assert spectral_convergence_db(target, target * (1 + error)) == pytest.approx(20 * np.log10(error), abs=0.01)


def test_equal_sounds_have_no_distance_and_a_gain_has_one() -> None:
    sound = noise()
    assert multi_resolution_sc_db(sound, sound) < -200
    assert log_spectral_distance_db(sound, sound) == 0
    assert mel_l1_db(sound, sound, RATE) == 0
    assert multi_resolution_sc_db(sound, 2 * sound) == pytest.approx(0.0, abs=1e-4)
    assert mel_l1_db(sound, sound * np.float32(10**0.05), RATE) == pytest.approx(1.0, abs=0.01)


def test_every_distance_grows_with_the_noise() -> None:
    sound = clip("band", MINI, 128)[:, :RATE]
    numbers = [
        (
            multi_resolution_sc_db(sound, sound + np.float32(level) * noise()[:, : sound.shape[1]]),
            log_spectral_distance_db(sound, sound + np.float32(level) * noise()[:, : sound.shape[1]]),
            mel_l1_db(sound, sound + np.float32(level) * noise()[:, : sound.shape[1]], RATE),
        )
        for level in (0.01, 0.1, 1.0)
    ]
    assert np.all(np.diff(np.array(numbers), axis=0) > 0)


def test_level_matching_forgets_the_gain_only() -> None:
    sound = noise()
    np.testing.assert_allclose(level_matched(sound * np.float32(0.3), sound), sound, rtol=1e-5)
    silence = np.zeros_like(sound)
    np.testing.assert_array_equal(level_matched(silence, sound), silence)


def test_channels() -> None:
    left, right = noise(seed=1), noise(seed=2)
    independent = np.concatenate([left, right])
    assert channel_correlation(np.concatenate([left, left])) == pytest.approx(1)
    assert channel_correlation(np.concatenate([left, -left])) == pytest.approx(-1)
    assert abs(channel_correlation(independent)) < 0.03
    assert channel_correlation(np.zeros((2, 9), dtype=np.float32)) == 1
    lost = mono_sum_level_db(independent) - mono_sum_level_db(np.concatenate([left, left]))
    assert lost == pytest.approx(-3.01, abs=0.3)


def test_onsets() -> None:
    sound = inner(clip("drums", MINI, 256), MINI)
    assert onset_correlation(sound, sound, RATE) == pytest.approx(1)
    later = np.roll(sound, 3000, axis=1)
    assert onset_correlation(sound, later, RATE) < 0.7
    assert onset_correlation(np.zeros_like(sound), sound, RATE) is None


def test_a_picture_against_its_own_sound() -> None:
    samples = clip("piano", MINI, 64)
    levels, original = encode_clip(samples, MINI), inner(samples, MINI)
    assert pixel_rmse(levels, original, MINI) < 1e-3
    assert self_consistency_db(levels, original, MINI) < -35
    assert pixel_rmse(levels, original * np.float32(0.5), MINI) > 0.02


def test_fidelity_of_mono_has_no_width() -> None:
    sound = noise()
    found = fidelity(sound, sound, RATE)
    assert found.correlation_error is None
    assert found.mono_sum_error_db is None
    stereo = fidelity(noise(2), noise(2) * np.float32(0.5), RATE)
    assert stereo.correlation_error == pytest.approx(0, abs=1e-6)
    assert stereo.mono_sum_error_db == pytest.approx(-6.02, abs=0.01)

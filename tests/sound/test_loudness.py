"""Loudness agrees with pyloudnorm, true peak with theory."""

import numpy as np
import pyloudnorm
import pytest
import scipy.signal
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.sound.loudness import integrated_loudness, k_weighting, normalising_gain_db, true_peak_db
from tests.sounds import FIXTURES, MUSIC, tone

AGREEMENT_LU = 1e-3


@pytest.mark.parametrize("name", MUSIC)
def test_loudness_is_pyloudnorms_on_music(name: str) -> None:
    from sdxl_mel.files.audio import read_audio

    samples, rate = read_audio(FIXTURES / f"{name}.flac")
    theirs = pyloudnorm.Meter(rate).integrated_loudness(samples.T.astype(np.float64))
    assert integrated_loudness(samples, rate) == pytest.approx(theirs, abs=AGREEMENT_LU)


@settings(deadline=None, max_examples=20)
@given(
    seconds=st.floats(0.45, 3.0), rate=st.sampled_from([8000, 16000, 22050, 44100]), channels=st.integers(1, 2),
    quiet=st.floats(0, 1), seed=st.integers(0, 9),
)  # fmt: skip
def test_loudness_is_pyloudnorms_on_gated_noise(
    seconds: float, rate: int, channels: int, quiet: float, seed: int
) -> None:
    noise = np.random.default_rng(seed).standard_normal((channels, int(seconds * rate))).astype(np.float32) * 0.1
    noise[:, : int(quiet * noise.shape[1])] *= 1e-3
    theirs = pyloudnorm.Meter(rate).integrated_loudness(noise.T.astype(np.float64))
    ours = integrated_loudness(noise, rate)
    assert ours == pytest.approx(theirs, abs=AGREEMENT_LU) or (ours < -69.9 and theirs < -69.9)


def test_the_weighting_is_the_standards() -> None:
    """ITU-R BS.1770-4, tables 1 and 2: the coefficients at 48 kHz."""
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    standard = scipy.signal.sos2tf([[*shelf[0], *shelf[1]], [*high_pass[0], *high_pass[1]]])
    hertz = np.geomspace(20, 20000, 200)
    ours, theirs = (scipy.signal.freqz(*taps, hertz, fs=48000)[1] for taps in (k_weighting(48000), standard))
    assert np.abs(20 * np.log10(np.abs(ours / theirs))).max() < 0.05


@pytest.mark.parametrize(("hertz", "lufs"), [(997.0, -3.01), (40.0, -9.3)])
def test_a_full_scale_sine(hertz: float, lufs: float) -> None:
    """BS.1770: a 0 dBFS sine of 997 Hz in one channel reads -3.01 LKFS."""
    assert integrated_loudness(tone(hertz, 2.0, 48000, amplitude=1.0), 48000) == pytest.approx(lufs, abs=0.1)


def test_true_peak_between_samples() -> None:
    # A sine at a quarter of the rate, 45 degrees off: every sample is at 0.707 of its peak.
    time = np.arange(48000)
    samples = np.sin(2 * np.pi * time / 4 + np.pi / 4).astype(np.float32)[None]
    samples *= np.hanning(48000).astype(np.float32)
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-3.01, abs=0.02)
    assert true_peak_db(samples, 48000) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("name", MUSIC)
def test_true_peak_is_that_of_four_times_the_rate(name: str) -> None:
    from sdxl_mel.files.audio import read_audio

    samples, rate = read_audio(FIXTURES / f"{name}.flac")
    finer = soxr.resample(samples.T, rate, 4 * rate, quality="VHQ")
    expected = 20 * np.log10(max(np.abs(finer).max(), np.abs(samples).max()))
    assert true_peak_db(samples, rate) == pytest.approx(expected, abs=0.02)


def test_silence_and_very_short_sounds() -> None:
    silence = np.zeros((2, 32000), dtype=np.float32)
    assert integrated_loudness(silence, 32000) == float("-inf")
    assert true_peak_db(silence, 32000) == float("-inf")
    assert normalising_gain_db(silence, 32000, -16.0, -1.0) == 0.0
    assert np.isfinite(integrated_loudness(tone(1000, 0.05, 32000), 32000))


def test_the_gain_reaches_the_loudness_unless_the_peak_forbids() -> None:
    even = tone(997.0, 2.0, 32000, amplitude=0.01)
    gain = normalising_gain_db(even, 32000, -16.0, -1.0)
    louder = even * np.float32(10 ** (gain / 20))
    assert integrated_loudness(louder, 32000) == pytest.approx(-16.0, abs=0.01)
    spiky = even.copy()
    spiky[0, 20000] = 0.9
    gain = normalising_gain_db(spiky, 32000, -16.0, -1.0)
    assert true_peak_db(spiky * np.float32(10 ** (gain / 20)), 32000) == pytest.approx(-1.0, abs=0.01)

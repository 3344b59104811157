"""STFT and mel bank against librosa, and the laws that the pictures rest on."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.sound.encoding import mel_spectrogram
from sdxl_mel.sound.inversion.projections import Consistency
from sdxl_mel.sound.mel import filter_bank, margin, overlap_add, reach, stft, stft_gain, wrap_margins
from sdxl_mel.sound.melspec import FORMATS, MelSpec, band_edges, named_spec
from tests.sounds import tone

SINGLE = 2e-6
"""Of the largest value: float32 against librosa's float32."""


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("name", ["std", "mini", "minimidi", "riffusion"])
def test_stft_is_librosas(name: str) -> None:
    spec, frames = named_spec(name), 8
    samples = noise(reach(frames, spec))
    # librosa centres a short window in a long FFT: its frame t begins this much earlier than the window does.
    early = (spec.n_fft - spec.win_length) // 2
    padded = np.pad(samples[0], early)
    theirs = librosa.stft(
        padded, n_fft=spec.n_fft, hop_length=spec.hop_length, win_length=spec.win_length, center=False
    )
    ours = stft(torch.from_numpy(samples), spec)[0].numpy().T / stft_gain(spec)
    assert ours.shape == (spec.n_bins, frames)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs[:, :frames]), atol=SINGLE * np.abs(theirs).max() * 10)


@pytest.mark.parametrize("name", FORMATS)
def test_filter_bank_is_librosas_and_has_no_empty_row(name: str) -> None:
    spec = named_spec(name)
    theirs = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax,
        htk=spec.mel_scale == "htk", norm=spec.mel_norm,
    )  # fmt: skip
    np.testing.assert_array_equal(filter_bank(spec).toarray(), theirs)
    assert (theirs.max(axis=1) > 0).all()


@settings(deadline=None, max_examples=10)
@given(frames=st.integers(8, 40), name=st.sampled_from(["std", "mini", "auffusion"]), seed=st.integers(0, 99))
def test_istft_undoes_stft(frames: int, name: str, seed: int) -> None:
    spec = named_spec(name)
    samples = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, reach(frames, spec))).astype(np.float32))
    again = Consistency(spec, frames).sound_of(stft(samples, spec))
    covered = slice(spec.hop_length, samples.shape[-1] - spec.hop_length)
    torch.testing.assert_close(again[:, covered], samples[:, covered], atol=1e-4, rtol=0)


def test_loop_istft_is_periodic_and_undoes_the_circular_stft() -> None:
    spec, frames = named_spec("mini"), 16
    circle = torch.from_numpy(noise(frames * spec.hop_length))
    before, after = margin(spec), reach(frames, spec) - margin(spec) - circle.shape[-1]
    laid_out = torch.cat([circle[:, -before:], circle, circle[:, :after]], dim=-1)
    again = Consistency(spec, frames, loop=True).sound_of(stft(laid_out, spec))
    torch.testing.assert_close(again, laid_out, atol=1e-5, rtol=0)
    total = torch.ones(1, reach(frames, spec))
    assert float(wrap_margins(total, frames, spec)[:, before : before + circle.shape[-1]].sum()) == reach(frames, spec)


def test_overlap_add_of_a_length_that_the_hop_does_not_divide() -> None:
    pieces = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    expected = torch.zeros(10)
    for index in range(3):
        expected[3 * index : 3 * index + 4] += pieces[index]
    torch.testing.assert_close(overlap_add(pieces, 3), expected)


def test_a_full_scale_sine_has_amplitude_one() -> None:
    spec = named_spec("std")
    hz = 1000.0 / (spec.sample_rate / spec.n_fft) // 1 * (spec.sample_rate / spec.n_fft)
    samples = tone(hz, 0.5, spec.sample_rate, amplitude=1.0)
    peak = stft(torch.from_numpy(samples), spec).abs().max()
    assert float(peak) == pytest.approx(1.0, abs=1e-4)


def test_a_tone_lights_its_row() -> None:
    spec = named_spec("std")
    centres = band_edges(spec.n_mels, spec.fmin, spec.fmax, "slaney")[1:-1]
    for row in range(0, spec.n_mels, 7):
        mel = mel_spectrogram(tone(centres[row], 0.15, spec.sample_rate), spec)
        assert mel[:, mel.shape[1] // 2, 0].argmax() == row


@settings(deadline=None, max_examples=15)
@given(gain_db=st.floats(-40, 6))
def test_gain_in_is_gain_out(gain_db: float) -> None:
    spec = MelSpec.model_validate(named_spec("mini").model_dump())
    samples = noise(reach(12, spec) + spec.hop_length) * 0.1
    gain = np.float32(10 ** (gain_db / 20))
    np.testing.assert_allclose(mel_spectrogram(samples * gain, spec), mel_spectrogram(samples, spec) * gain, rtol=1e-3)

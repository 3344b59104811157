"""The start of phase retrieval: where partials are, and phases that go on as theirs do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.inversion.blockwise import coarse_grid
from sdxl_mel.sound.inversion.phase_init import accumulated_phases, initial_phases, partial_frequencies
from sdxl_mel.sound.inversion.projections import Consistency
from sdxl_mel.sound.mel import magnitude, margin, stft
from sdxl_mel.sound.melspec import PRESETS
from tests.sounds import tone

STD, MINI = PRESETS["std"], PRESETS["mini"]


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(["std", "mini", "hifi"]), share=st.floats(0.01, 0.95))
def test_the_lobe_of_a_tone_tells_its_frequency(name: str, share: float) -> None:
    spec = PRESETS[name]
    hz = share * spec.sample_rate / 2
    spectrum = stft(torch.from_numpy(tone(hz, 0.5, spec.sample_rate)), spec)[0]
    frequencies = partial_frequencies(magnitude(spectrum), spec)
    nearest = round(hz * spec.n_fft / spec.sample_rate)
    found = frequencies[:, nearest].numpy() * spec.sample_rate / spec.n_fft
    assert np.abs(1200 * np.log2(found / hz)).max() < 1


def test_phases_made_from_magnitudes_make_the_tone_again() -> None:
    samples = torch.from_numpy(tone(440.0, 1.0, STD.sample_rate))
    target = magnitude(stft(samples, STD))[0]
    frequencies = partial_frequencies(target, STD)
    cycles = accumulated_phases(frequencies, STD) + initial_phases(frequencies[0], STD, torch_generator(0, "test"))
    spectrum = torch.polar(target, 2 * torch.pi * cycles)[None]
    sound = Consistency(STD, target.shape[0]).sound_of(spectrum)[0]
    inside = slice(margin(STD), -margin(STD))
    # Where in its period the tone begins is not known, so sizes and spectra are compared.
    assert float(sound[inside].std()) == pytest.approx(float(samples[0, inside].std()), rel=0.01)
    again = magnitude(stft(sound[None], STD))[0][8:-8]
    inner = target[8 : 8 + again.shape[0]]
    assert float(torch.linalg.norm(again - inner) / torch.linalg.norm(inner)) < 0.02


def test_a_frame_begins_at_random_but_alike_within_a_lobe() -> None:
    frequencies = torch.tensor([2.5, 2.5, 2.5, 2.5, 7.0, 7.0, 7.0])
    first, second, other = (initial_phases(frequencies, MINI, torch_generator(seed, "test")) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    step = -MINI.win_length / MINI.n_fft / 2
    torch.testing.assert_close(first[1:4] - first[:3], torch.full((3,), step))
    assert float(first[4] - first[3]) != pytest.approx(step)


def test_silence_has_phases_too() -> None:
    frequencies = partial_frequencies(torch.zeros(5, MINI.n_bins), MINI)
    assert torch.equal(frequencies, torch.arange(MINI.n_bins, dtype=torch.float32).expand(5, -1))
    assert torch.isfinite(accumulated_phases(frequencies, coarse_grid(MINI))).all()


@pytest.mark.parametrize("low", [1e-30, 1e-20, 1e-38])
def test_a_low_lobe_beside_a_high_one_has_a_frequency(low: float) -> None:
    magnitudes = torch.zeros(1, MINI.n_bins)
    magnitudes[0, 100], magnitudes[0, 102], magnitudes[0, 104] = 0.5, low, 0.5
    assert torch.isfinite(partial_frequencies(magnitudes, MINI)).all()

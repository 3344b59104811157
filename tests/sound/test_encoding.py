"""Sound to pictures: exact widths, real audio to the last column, one loudness, any rate and any channels."""

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.errors import InputError
from sdxl_mel.sound.encoding import (
    Deemphasis,
    cut_clip,
    downmixed,
    emphasise,
    encode_clip,
    mel_spectrogram,
    prepare_signal,
)
from sdxl_mel.sound.loudness import integrated_loudness, true_peak_db
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import PRESETS, named_spec
from tests.sounds import clip, tone

STD, MINI = PRESETS["std"], PRESETS["mini"]
HALF = 0.5**0.5


def stereo_noise(seconds: float, rate: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((2, int(seconds * rate))) * 0.1).astype(np.float32)


def test_the_picture_has_exactly_the_frames_asked_for() -> None:
    signal = prepare_signal(stereo_noise(2.0, 32000), 32000, STD)
    levels = encode_clip(cut_clip(signal, 1000, 64, STD), STD)
    assert levels.shape == (512, 64, 3)
    assert levels.dtype == np.uint8


def test_no_picture_ends_in_black_columns() -> None:
    signal = prepare_signal(stereo_noise(1.0, 16000), 16000, MINI)
    frames = signal.shape[-1] // MINI.hop_length
    columns = encode_clip(cut_clip(signal, 0, frames, MINI), MINI).mean(axis=(0, 2))
    assert np.abs(columns - columns.mean()).max() < 0.15 * columns.mean()


def test_the_context_beside_a_clip_is_the_tracks_own() -> None:
    signal = prepare_signal(stereo_noise(1.0, 16000), 16000, MINI)
    start = 2048
    piece = cut_clip(signal, start, 16, MINI)
    np.testing.assert_array_equal(piece, signal[:, start - margin(MINI) : start + 16 * 256 + margin(MINI)])
    whole = mel_spectrogram(cut_clip(signal, 0, 40, MINI), MINI)
    np.testing.assert_allclose(mel_spectrogram(piece, MINI), whole[:, 8:24], atol=1e-6)


@pytest.mark.parametrize(("start", "frames"), [(-1, 8), (0, 64), (16000, 8)])
def test_a_clip_beyond_the_track_is_refused(start: int, frames: int) -> None:
    with pytest.raises(InputError, match="the sound has 16000"):
        cut_clip(np.zeros((1, 16000), dtype=np.float32), start, frames, MINI)


@pytest.mark.parametrize("name", ["strings", "drums", "transients"])
def test_loudness_and_true_peak_of_every_track(name: str) -> None:
    from sdxl_mel.files.audio import read_audio
    from tests.sounds import FIXTURES

    samples, rate = read_audio(FIXTURES / f"{name}.flac")
    signal = prepare_signal(samples * np.float32(0.01), rate, STD)
    loudness, peak = integrated_loudness(signal, 32000), true_peak_db(signal, 32000)
    assert peak <= -1.0 + 0.01
    assert loudness == pytest.approx(-16.0, abs=0.05) or peak == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_any_rate_keeps_duration_and_level(rate: int) -> None:
    samples = tone(1000.0, 1.0, rate)
    signal = prepare_signal(samples, rate, STD)
    assert signal.shape == (1, 32000)
    expected = prepare_signal(tone(1000.0, 1.0, 32000), 32000, STD)
    inside = slice(1000, 31000)
    assert np.abs(signal[:, inside] - expected[:, inside]).max() < 0.01


def test_resampling_is_soxrs() -> None:
    samples = stereo_noise(0.5, 44100)
    spec = STD.model_copy(update={"loudness_lufs": None})
    np.testing.assert_array_equal(prepare_signal(samples, 44100, spec), soxr.resample(samples.T, 44100, 32000).T)


def test_mono_and_equal_channels_make_the_same_grey_picture() -> None:
    mono = tone(440.0, 1.0, 32000)
    one = prepare_signal(mono, 32000, STD)
    two = prepare_signal(np.repeat(mono, 2, axis=0), 32000, STD)
    np.testing.assert_array_equal(one, two)
    assert encode_clip(cut_clip(two, 0, 32, STD), STD).shape[-1] == 1


def test_the_channels_are_left_mid_right() -> None:
    spec = STD.model_copy(update={"loudness_lufs": None})
    left, right = tone(1000.0, 1.0, 32000, 0.3), tone(4000.0, 1.0, 32000, 0.1)
    mel = mel_spectrogram(cut_clip(np.concatenate([left, right]), 0, 32, spec), spec)[:, 16]
    alone = [mel_spectrogram(cut_clip(part, 0, 32, spec), spec)[:, 16, 0] for part in (left, (left + right) / 2, right)]
    np.testing.assert_allclose(mel, np.stack(alone, axis=-1), atol=1e-6)


def test_six_decibels_in_are_six_decibels_out() -> None:
    spec = STD.model_copy(update={"loudness_lufs": None})
    samples = clip("piano", spec, 32) * np.float32(0.1)
    ratio = mel_spectrogram(samples * np.float32(2), spec) / np.maximum(mel_spectrogram(samples, spec), 1e-12)
    np.testing.assert_allclose(ratio, 2.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((1, 0), dtype=np.float32), "no samples"),
        (np.full((1, 100), np.nan, dtype=np.float32), "NaN or infinite"),
        (np.array([[0.0, np.inf]], dtype=np.float32), "NaN or infinite"),
    ],
)
def test_what_is_no_sound(samples: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare_signal(samples, 32000, STD)


def test_silence_stays_silence() -> None:
    signal = prepare_signal(np.zeros((2, 32000), dtype=np.float32), 32000, STD)
    assert not encode_clip(cut_clip(signal, 0, 32, STD), STD).any()


def test_deemphasis_undoes_pre_emphasis_piece_by_piece() -> None:
    spec = named_spec("minimidi")
    samples = stereo_noise(0.5, 16000)
    emphasised = emphasise(samples, spec.preemphasis)
    np.testing.assert_allclose(emphasised[:, 1:], samples[:, 1:] - 0.97 * samples[:, :-1], atol=1e-6)
    filtered = Deemphasis(spec.preemphasis)
    pieces = [filtered(emphasised[:, start : start + 1000]) for start in range(0, 8000, 1000)]
    np.testing.assert_allclose(np.concatenate(pieces, axis=-1), samples, atol=1e-5)


def channels(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 64)).astype(np.float32)


def test_one_and_two_channels() -> None:
    stereo = channels(2)
    np.testing.assert_array_equal(downmixed(stereo, mono=False), stereo)
    np.testing.assert_allclose(downmixed(stereo, mono=True), stereo.mean(axis=0, keepdims=True))
    equal = np.repeat(stereo[:1], 2, axis=0)
    np.testing.assert_array_equal(downmixed(equal, mono=False), stereo[:1])


def test_five_point_one_is_itu_bs_775() -> None:
    left, right, centre, lfe, left_surround, right_surround = six = channels(6)
    scale = 1 + 2 * HALF
    expected = np.stack([left + HALF * (centre + left_surround), right + HALF * (centre + right_surround)]) / scale
    np.testing.assert_allclose(downmixed(six, mono=False), expected, atol=1e-6)
    six[3] += 100 * lfe
    np.testing.assert_allclose(downmixed(six, mono=False), expected, atol=1e-6)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8])
def test_mirrored_channels_give_a_mirrored_sound(count: int) -> None:
    pairs = {3: [(0, 1)], 4: [(0, 1), (2, 3)], 5: [(0, 1), (3, 4)], 6: [(0, 1), (4, 5)], 8: [(0, 1), (4, 5), (6, 7)]}
    sound = channels(count)
    mirrored = sound.copy()
    for one, other in pairs[count]:
        mirrored[[one, other]] = mirrored[[other, one]]
    np.testing.assert_allclose(downmixed(mirrored, mono=False), downmixed(sound, mono=False)[::-1], atol=1e-6)


def test_unknown_layouts_become_their_mean() -> None:
    seven = channels(7)
    np.testing.assert_allclose(downmixed(seven, mono=False), seven.mean(axis=0, keepdims=True), atol=1e-6)


@given(count=st.integers(1, 10), mono=st.booleans())
def test_never_louder_than_the_loudest_channel(count: int, mono: bool) -> None:
    sound = channels(count)
    mixed = downmixed(sound, mono)
    assert mixed.shape[0] <= (1 if mono else 2)
    assert np.abs(mixed).max() <= np.abs(sound).max() + 1e-6

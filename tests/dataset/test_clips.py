"""Where clips are cut, what is rejected, and fingerprints that know a copy from another clip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.dataset.clips import (
    clip_loudness,
    clipped_seconds,
    needed_seconds,
    reject_reason,
    silent_share,
    windows,
)
from sdxl_mel.dataset.settings import Cutting, RejectSettings
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.fingerprint import fingerprint, similar_pairs
from sdxl_mel.sound.mel import margin
from sdxl_mel.sound.melspec import LATENT_FACTOR, PRESETS
from tests.dataset.music import SAMPLE_RATE, melody

SPEC = PRESETS["mini"]


@settings(deadline=None)
@given(
    st.sampled_from(list(PRESETS)),
    st.integers(50, 3000),
    st.one_of(st.none(), st.integers(1, 6)),
    st.floats(0, 3),
    st.integers(1, 8),
    st.floats(0.1, 200),
)
def test_every_clip_has_its_true_neighbours(name, stride, count, skip, offsets, seconds) -> None:
    spec = PRESETS[name]
    cut = Cutting(stride * spec.hop_length / spec.sample_rate, count, skip, offsets)
    samples = round(seconds * spec.sample_rate)
    found = windows(samples, spec, cut)
    assert bool(found) == (samples >= needed_seconds(spec, cut) * spec.sample_rate - 0.5)
    assert count is None or len(found) <= count
    for window in found:
        assert window.starts[0] == window.frame * spec.hop_length
        assert len(window.starts) == offsets
        assert all(start < window.starts[0] + LATENT_FACTOR * spec.hop_length for start in window.starts)
        outer = max(margin(spec), int(skip * spec.sample_rate))
        assert window.starts[0] >= outer
        assert window.starts[-1] + spec.tile_samples + outer <= samples
    frames = [window.frame for window in found]
    assert frames == sorted(set(frames))
    assert count is not None or all(b - a == stride for a, b in zip(frames, frames[1:]))


def clip_of(sound: np.ndarray) -> str:
    loudness = clip_loudness(sound, SPEC.sample_rate)
    return reject_reason(sound, loudness, SPEC, clipped=0, settings=RejectSettings())


def test_rejects_have_reasons() -> None:
    music = melody(1, 4.0)
    assert clip_of(music) == ""
    paused = music.copy()
    paused[:, : SAMPLE_RATE * 2] = 0
    assert clip_of(paused).startswith("silence: 50%")
    assert clip_of(np.zeros_like(music)).startswith("silence: 100%")
    quiet = music * 10 ** (-40 / 20)
    assert clip_of(quiet + 0.002).startswith("too quiet: -5")
    loudness = clip_loudness(music, SPEC.sample_rate)
    assert reject_reason(music, loudness, SPEC, clipped=60, settings=RejectSettings()).startswith("clipping: 15")


def test_clipping_is_seen_at_full_scale_only() -> None:
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    sine = np.sin(2 * np.pi * 100 * times, dtype=np.float32)[None]
    assert clipped_seconds(sine * 0.9, SAMPLE_RATE).size == 0
    hard = np.clip(sine * 2, -1, 1)
    assert clipped_seconds(hard, SAMPLE_RATE).size == 200
    assert clipped_seconds(hard * 0.5, SAMPLE_RATE).size == 0
    assert np.allclose(np.diff(clipped_seconds(hard, SAMPLE_RATE)), 1 / 200, atol=2 / SAMPLE_RATE)


def test_silent_share_counts_tenths_of_a_second() -> None:
    sound = np.ones((2, SAMPLE_RATE), dtype=np.float32)
    sound[:, : SAMPLE_RATE // 2] = 10 ** (-61 / 20)
    assert silent_share(sound, SAMPLE_RATE, -60.0) == pytest.approx(0.5)


def print_of(sound: np.ndarray, start: int = SAMPLE_RATE) -> bytes:
    signal = prepare_signal(sound, SAMPLE_RATE, SPEC)
    return fingerprint(encode_clip(cut_clip(signal, start, SPEC.width, SPEC), SPEC))


def similarity(first: bytes, second: bytes) -> float:
    return next(similar_pairs([first, second], at_least=-1.0))[2]


def test_a_fingerprint_knows_a_copy() -> None:
    music = melody(3)
    original = print_of(music)
    noise = np.random.default_rng(0).standard_normal(music.shape).astype(np.float32)
    assert len(original) == 512
    assert similarity(original, print_of(music * 0.3)) > 0.99, "louder or quieter"
    assert similarity(original, print_of(music + 0.002 * noise)) > 0.95, "with noise, as after a lossy codec"
    assert similarity(original, print_of(music, SAMPLE_RATE + 800)) > 0.95, "50 ms later"
    others = [print_of(melody(seed)) for seed in range(10, 20)]
    assert max(similarity(original, other) for other in others) < 0.5


def test_silence_and_held_tones_are_not_called_alike() -> None:
    assert (
        similarity(
            print_of(np.zeros((1, 7 * SAMPLE_RATE), np.float32)), print_of(np.zeros((1, 7 * SAMPLE_RATE), np.float32))
        )
        == 0
    )
    times = np.arange(7 * SAMPLE_RATE) / SAMPLE_RATE
    tones = [print_of(0.3 * np.sin(2 * np.pi * f * times, dtype=np.float32)[None]) for f in (440, 450)]
    assert similarity(*tones) < 0.5


def test_pairs_name_the_most_similar_earlier_one() -> None:
    prints = [print_of(melody(seed)) for seed in (1, 2, 1)]
    assert [pair[:2] for pair in similar_pairs(prints, 0.8)] == [(0, 2)]
    assert list(similar_pairs([], 0.8)) == []

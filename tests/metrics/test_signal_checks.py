import numpy as np
import pytest

from sdxl_mel.metrics.signal_checks import Facts, clipped_share, facts_of, rolloff_hertz, seam_score, silent_share
from sdxl_mel.sound.melspec import PRESETS
from tests.metrics.clouds import SAMPLE_RATE, noise, tone


def test_facts_survive_the_cache():
    facts = facts_of(tone(440.0, 2.0)[None], SAMPLE_RATE)
    again = Facts.from_row(facts.to_row())
    assert (again.rate, again.channels, again.consistency) == (SAMPLE_RATE, 1, None)
    assert again.lufs == pytest.approx(facts.lufs, rel=1e-6)
    assert Facts.from_row(facts_of(tone(440.0)[None], SAMPLE_RATE, 0.02).to_row()).consistency == pytest.approx(0.02)


def test_half_silence_is_half():
    sound = tone(440.0, 4.0)
    sound[: len(sound) // 2] = 0.0
    assert silent_share(sound[None], SAMPLE_RATE) == pytest.approx(0.5, abs=0.03)


def test_silence_is_silent_and_a_tone_is_not():
    assert facts_of(np.zeros((1, SAMPLE_RATE), np.float32), SAMPLE_RATE).is_silent
    assert not facts_of(tone(440.0)[None], SAMPLE_RATE).is_silent


def test_clipping_counts_flat_tops_and_not_peaks():
    loud = np.clip(4.0 * tone(100.0, 1.0), -1.0, 1.0)
    assert clipped_share(loud[None]) > 0.1
    single = tone(100.0, 1.0)
    single[::1000] = 1.0
    assert clipped_share(single[None]) == 0.0


def test_rolloff_of_a_tone_and_of_noise():
    assert rolloff_hertz(tone(1000.0), SAMPLE_RATE) == pytest.approx(1000.0, abs=10)
    assert rolloff_hertz(noise(), SAMPLE_RATE) == pytest.approx(0.95 * SAMPLE_RATE / 2, rel=0.02)
    assert rolloff_hertz(np.zeros(9000, np.float32), SAMPLE_RATE) == 0.0


def test_a_constant_offset_is_seen():
    assert facts_of(tone(440.0)[None] + np.float32(0.1), SAMPLE_RATE).offset == pytest.approx(0.1, abs=1e-3)


def test_one_sample_has_facts():
    assert np.isfinite(facts_of(np.full((2, 1), 0.5, np.float32), 44100).to_row()).all()


def picture(tiles, joined, seed=0):
    """Return a random walk over a few tiles of the preset mini; if not `joined`, each tile starts anew."""
    spec = PRESETS["mini"]
    generator = np.random.default_rng(seed)
    starts = [generator.random((spec.n_mels, 1, 1)) for _ in range(tiles)]
    steps = 0.01 * generator.standard_normal((spec.n_mels, tiles * spec.width, 1))
    values = starts[0] + np.cumsum(steps, axis=1)
    for tile in range(1, 0 if joined else tiles):
        first = tile * spec.width
        values[:, first:] += starts[tile] - values[:, first : first + 1]
    return np.clip(values, 0, 1).astype(np.float32), spec


def test_joins_of_tiles_that_know_nothing_of_each_other_stand_out():
    smooth = [seam_score(*picture(4, joined=True, seed=seed)) for seed in range(10)]
    assert seam_score(*picture(4, joined=False)) > 3.0 > max(smooth)


def test_one_tile_has_no_joins():
    assert seam_score(*picture(1, joined=True)) is None

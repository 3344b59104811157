import numpy as np
import pytest

from sdxl_mel.files.spectrogram import Spectrogram
from sdxl_mel.metrics.codec_fidelity import pixel_rmse
from sdxl_mel.metrics.signal_checks import (
    FACTS,
    Fact,
    Signal,
    clipped_share,
    facts_of,
    from_row,
    identity,
    is_silent,
    rolloff_hertz,
    seam_score,
    silent_share,
    to_row,
)
from sdxl_mel.sound.melspec import PRESETS
from tests.metrics.simulated import SAMPLE_RATE, noise, tone


def signal(samples):
    return Signal(samples[None], SAMPLE_RATE)


def test_facts_survive_the_cache():
    facts = facts_of(signal(tone(440.0, 2.0)))
    again = from_row(to_row(facts))
    assert again.keys() == facts.keys()
    assert again["lufs"] == pytest.approx(facts["lufs"], rel=1e-6)
    assert (again["seconds"], again["consistency"], again["seam"]) == (2.0, None, None)


def test_another_fact_is_another_cache():
    more = (*FACTS, Fact("energy", lambda signal: float(np.square(signal.samples).sum())))
    assert identity(more) != identity()
    assert from_row(to_row(facts_of(signal(tone(440.0)), more)), more)["energy"] > 0


def test_consistency_is_that_of_the_picture_with_its_own_sound():
    spec = PRESETS["mini"]
    levels = np.random.default_rng(0).integers(0, 120, (spec.n_mels, 64, 1)).astype(np.uint8)
    samples = np.zeros((1, 64 * spec.hop_length), np.float32)
    facts = facts_of(Signal(samples, spec.sample_rate, Spectrogram(levels, spec)))
    assert facts["consistency"] == pytest.approx(pixel_rmse(levels, samples, spec))
    assert facts["seam"] is None


def test_half_silence_is_half():
    sound = tone(440.0, 4.0)
    sound[: len(sound) // 2] = 0.0
    assert silent_share(signal(sound)) == pytest.approx(0.5, abs=0.03)


def test_silence_is_silent_and_a_tone_is_not():
    assert is_silent(facts_of(signal(np.zeros(SAMPLE_RATE, np.float32))))
    assert not is_silent(facts_of(signal(tone(440.0))))


def test_clipping_counts_flat_tops_and_not_peaks():
    loud = np.clip(4.0 * tone(100.0, 1.0), -1.0, 1.0)
    assert clipped_share(signal(loud)) > 0.1
    single = tone(100.0, 1.0)
    single[::1000] = 1.0
    assert clipped_share(signal(single)) == 0.0


def test_rolloff_of_a_tone_and_of_noise():
    assert rolloff_hertz(signal(tone(1000.0))) == pytest.approx(1000.0, abs=10)
    assert rolloff_hertz(signal(noise())) == pytest.approx(0.95 * SAMPLE_RATE / 2, rel=0.02)
    assert rolloff_hertz(signal(np.zeros(9000, np.float32))) == 0.0


def test_a_constant_offset_is_seen():
    assert facts_of(signal(tone(440.0) + np.float32(0.1)))["offset"] == pytest.approx(0.1, abs=1e-3)


def test_one_sample_has_facts():
    assert np.isfinite(to_row(facts_of(Signal(np.full((2, 1), 0.5, np.float32), 44100)))).all()


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

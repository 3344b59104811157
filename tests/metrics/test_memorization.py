import numpy as np
import pytest

from sdxl_mel.metrics.memorization import (
    COPY_CORRELATION,
    Neighbour,
    authenticity,
    copy_correlation,
    nearest_neighbours,
    threshold_of,
)
from tests.metrics.simulated import SAMPLE_RATE, chord, drums, noise, units


def test_nearest_neighbour_against_all_pairs():
    generated, training = units(12, 16, 1), units(40, 16, 2)
    owner, training_owner = np.arange(12) // 3, np.arange(40) % 10
    cosines = generated @ training.T
    for clip, found in enumerate(nearest_neighbours(generated, owner, training, training_owner)):
        by_clip = [cosines[owner == clip][:, training_owner == other].max() for other in range(10)]
        assert found.clip == int(np.argmax(by_clip))
        assert found.cosine == pytest.approx(max(by_clip))


def test_a_clip_is_not_its_own_neighbour():
    rows = units(20, 16, 1)
    found = nearest_neighbours(rows, np.arange(20), rows, np.arange(20), same=True)
    assert all(one.clip != index and one.cosine < 1 - 1e-9 for index, one in enumerate(found))


def test_threshold_is_passed_by_one_held_out_clip_in_a_hundred():
    training = units(300, 8, 1)
    baseline = nearest_neighbours(units(400, 8, 2), np.arange(400), training, np.arange(300))
    fresh = nearest_neighbours(units(400, 8, 3), np.arange(400), training, np.arange(300))
    assert np.mean([one.cosine > threshold_of(baseline) for one in fresh]) < 0.03


def test_authenticity_is_half_for_another_sample_and_0_for_copies():
    training = units(200, 8, 1)
    within = nearest_neighbours(training, np.arange(200), training, np.arange(200), same=True)
    fresh = nearest_neighbours(units(300, 8, 2), np.arange(300), training, np.arange(200))
    assert 0.35 < authenticity(fresh, within) < 0.75
    assert authenticity([Neighbour(index, 1.0) for index in range(200)], within) == 0.0


@pytest.mark.parametrize("start", [0.0, 1.3])
def test_a_copy_is_found_at_its_place_through_noise_and_gain(start):
    track = np.concatenate([drums(5, 1), chord((220.0, 277.0), 3), drums(4, 2)])
    first = int(start * SAMPLE_RATE)
    clip = 0.4 * track[first : first + 5 * SAMPLE_RATE] + noise(5, 3, 0.003)
    assert copy_correlation(clip, track) > COPY_CORRELATION


def test_another_performance_of_the_same_kind_is_no_copy():
    assert copy_correlation(drums(4, 1, tempo=120.0), drums(6, 2, bass=True, tempo=97.0)) < COPY_CORRELATION
    assert copy_correlation(noise(4, 1), noise(6, 2)) < 0.3


def test_silence_is_no_copy_of_anything():
    assert copy_correlation(np.zeros(SAMPLE_RATE * 2, np.float32), drums(4, 1)) == pytest.approx(0.0, abs=1e-6)

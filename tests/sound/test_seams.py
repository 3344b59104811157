"""Seam scores and the search for an overlap, on pictures whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.sound.seams import (
    beat_frames,
    calmest_turn,
    junction_score,
    matching_overlap,
    onset_envelope,
    seam_scores,
    shared_overlap,
    spectral_flux,
)

BANDS = 32


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((BANDS, frames, 1)).astype(np.float32)


def beats(frames: int, period: int, first: int = 0, seed: int = 0) -> np.ndarray:
    values = noise(frames, seed) * 0.05
    for onset in range(first, frames, period):
        values[:, onset : onset + 4] += np.array([0.9, 0.6, 0.4, 0.2], np.float32)[: frames - onset, None]
    return np.clip(values, 0, 1)


def test_plain_flux_is_the_mean_absolute_difference() -> None:
    values = noise(20)
    expected = np.abs(np.diff(values, axis=1)).mean(axis=(0, 2))
    np.testing.assert_allclose(spectral_flux(values), expected, atol=1e-6)


@given(st.integers(1, 30), st.integers(0, 10), st.integers(1, 8))
def test_flux_across_a_gap_is_the_formula(frames: int, gap: int, context: int) -> None:
    values = noise(frames)
    flux = spectral_flux(values, gap, context)
    assert len(flux) == max(0, frames - 2 * context - gap + 1)
    for index, value in enumerate(flux):
        before = values[:, index : index + context].mean(axis=1)
        after = values[:, index + context + gap : index + 2 * context + gap].mean(axis=1)
        assert value == pytest.approx(np.abs(after - before).mean(), abs=1e-5)


def test_a_change_of_sound_at_the_seam_stands_out_and_an_even_piece_does_not() -> None:
    even = noise(400)
    changed = even.copy()
    changed[:16, 200:] *= 0.2
    starts, overlaps = [190], [20]
    assert abs(seam_scores(even, starts, overlaps, context=10)[0]) < 3
    assert seam_scores(changed, starts, overlaps, context=10)[0] > 4


def test_score_is_unknown_where_nothing_is_left_to_compare() -> None:
    assert np.isnan(seam_scores(noise(30), [2], [20], context=10)[0])
    assert np.isnan(seam_scores(np.zeros((BANDS, 100, 1), np.float32), [50], [10], context=5)[0])


def test_junction_of_a_loop() -> None:
    smooth = (0.5 + 0.5 * np.cos(np.arange(200) * 2 * np.pi / 50)) * np.ones((BANDS, 1))
    loop = smooth[..., None].astype(np.float32)
    assert junction_score(loop) < 1
    assert junction_score(loop[:, :175]) > 5


@given(st.integers(8, 40), st.integers(0, 8), st.integers(0, 100))
def test_a_turned_loop_ends_where_least_changes(frames: int, reach: int, seed: int) -> None:
    values = noise(frames, seed)
    turn = calmest_turn(values, reach)
    assert abs(turn) <= reach

    def change(by: int) -> float:
        loop = np.roll(values, -by, axis=1)
        return float(np.abs(loop[:, 0] - loop[:, -1]).mean())

    assert change(turn) == min(change(by) for by in range(-reach, reach + 1))


def test_a_loop_that_ends_calmly_stays_as_it_is() -> None:
    assert calmest_turn(np.ones((BANDS, 20, 1), np.float32), 8) == 0


@pytest.mark.parametrize("period", [20, 31, 47])
def test_beat_is_found(period: int) -> None:
    # 62.5 frames a second are 60 to 180 beats a minute at periods of 21 to 62 frames, with 20 just outside.
    found = beat_frames(onset_envelope(beats(600, period)), 62.5)
    assert found in (period, 2 * period)


def test_no_beat_gives_half_a_second() -> None:
    assert beat_frames(np.zeros(200, np.float32), 60.0) == 30
    assert beat_frames(np.zeros(1, np.float32), 60.0) == 30


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 90))
def test_shared_overlap_of_cut_tiles_is_found(overlap: int) -> None:
    whole = noise(200)
    assert shared_overlap(whole[:, :100], whole[:, 100 - overlap :], nominal=25) == overlap


def test_unlike_tiles_share_nothing() -> None:
    assert shared_overlap(noise(100, 1), noise(100, 2), nominal=25) is None


@pytest.mark.parametrize("late", [0, 5, 12])
def test_search_lays_beat_on_beat(late: int) -> None:
    period = 25
    earlier, later = beats(200, period, seed=1), beats(200, period, first=late, seed=2)
    overlap = matching_overlap(earlier, later, nominal=60, reach=period)
    # The later tile starts at frame 200 - overlap of the earlier one; its beats must fall on multiples of the period.
    assert (200 - overlap + late) % period == 0


def test_search_without_room_keeps_the_nominal_overlap() -> None:
    assert matching_overlap(noise(3), noise(3), nominal=25, reach=4) == 25

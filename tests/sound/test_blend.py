"""Power-domain joins: laws of the weights, of cutting and joining, and of energy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.errors import InputError
from sdxl_mel.sound.blend import (
    blend,
    blend_mel,
    blended,
    close_loop,
    cut_starts,
    join,
    raised_cosine,
    seam_weights,
    starts_of,
)
from sdxl_mel.sound.melspec import FORMATS, MelSpec
from sdxl_mel.sound.pixels import dequantise, mel_of_values

SPEC = FORMATS["mini"]


def picture(frames: int, channels: int = 1, seed: int = 0, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (SPEC.n_mels, frames, channels), np.uint8)


@given(st.integers(1, 600))
def test_fade_and_its_reverse_sum_to_one(frames: int) -> None:
    weights = raised_cosine(frames)
    np.testing.assert_allclose(weights + weights[::-1], 1.0, atol=1e-6)
    assert (np.diff(weights) > 0).all()


@settings(max_examples=40, deadline=None)
@given(widths=st.lists(st.integers(20, 60), min_size=1, max_size=5), overlap=st.integers(0, 19))
def test_windows_blended_one_after_the_other_are_the_picture_that_is_joined_at_once(
    widths: list[int], overlap: int
) -> None:
    tiles = [picture(width, seed=width + number) for number, width in enumerate(widths)]
    overlaps = [overlap] * (len(tiles) - 1)
    blocks = list(blended(zip(starts_of(widths, overlaps), [0, *overlaps], tiles), SPEC))
    assert [first for first, _ in blocks] == starts_of([levels.shape[1] for _, levels in blocks], [0] * len(overlaps))
    np.testing.assert_array_equal(np.concatenate([levels for _, levels in blocks], axis=1), join(tiles, overlaps, SPEC))


@given(st.integers(1, 300), st.integers(1, 400))
def test_crossfade_fills_the_middle_of_the_overlap(overlap: int, crossfade: int) -> None:
    weights = seam_weights(overlap, crossfade)
    assert len(weights) == overlap
    faded = ((weights > 0) & (weights < 1)).sum()
    assert faded == min(crossfade, overlap)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(40, 400),
    width=st.integers(20, 120),
    percent=st.floats(5, 50),
    channels=st.sampled_from([1, 3]),
    name=st.sampled_from(sorted(FORMATS)),
)
def test_cut_then_join_gives_the_picture_back(
    frames: int, width: int, percent: float, channels: int, name: str
) -> None:
    """For any overlap from 5 to 50 %, any number of tiles and every format's law: exact, seams included."""
    overlap = max(1, round(width * percent / 100))
    whole = picture(frames, channels, seed=frames)
    starts = cut_starts(frames, width, overlap)
    tiles = [whole[:, start : start + width] for start in starts]
    spec = FORMATS[name]
    joined = join(tiles, [overlap] * (len(tiles) - 1), spec)
    np.testing.assert_array_equal(joined, whole)
    assert starts_of([tile.shape[1] for tile in tiles], [overlap] * (len(tiles) - 1)) == starts


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 199))
def test_cut_covers_every_frame_and_each_tile_brings_new_ones(frames: int, width: int, overlap: int) -> None:
    if overlap >= width:
        with pytest.raises(InputError, match="does not fit"):
            cut_starts(frames, width, overlap)
        return
    starts = cut_starts(frames, width, overlap)
    ends = [min(start + width, frames) for start in starts]
    assert ends[-1] == frames
    assert all(after > before for before, after in zip(ends, ends[1:]))


@pytest.mark.parametrize("quantity", ["amplitude", "power"])
def test_blend_keeps_the_mean_power_of_unlike_tiles(quantity: str) -> None:
    """The mean power through the seam is within 0.3 dB of the tiles'; blending pixels loses over 4 dB."""
    spec = SPEC.model_copy(update={"quantity": quantity})
    frames = 64
    # Equal power in different bands: what two generated tiles with different notes look like.
    earlier, later = np.zeros((2, spec.n_mels, frames, 1), np.uint8)
    earlier[::2], later[1::2] = 200, 200
    weights = seam_weights(frames)
    mixed = blend(earlier, later, weights, spec)
    gain_db = 10 * np.log10(power(mixed, spec).sum(0) / power(earlier, spec).sum(0))
    assert np.abs(gain_db).max() < 0.3
    pixels = np.rint(earlier + (later.astype(float) - earlier) * weights[:, None]).astype(np.uint8)
    lost_db = 10 * np.log10(power(pixels, spec).sum(0) / power(earlier, spec).sum(0))
    assert lost_db.min() < -4


def power(levels: np.ndarray, spec: MelSpec) -> np.ndarray:
    mel = mel_of_values(dequantise(levels), spec).astype(float)
    return mel if spec.quantity == "power" else mel**2


@given(st.floats(0, 1), st.floats(0.001, 10), st.floats(0.001, 10))
def test_blend_mel_is_the_formula(weight: float, a: float, b: float) -> None:
    def blended(quantity: str) -> float:
        one, two = np.full((1, 1, 1), a, np.float32), np.full((1, 1, 1), b, np.float32)
        return float(blend_mel(one, two, np.array([weight], np.float32), quantity)[0, 0, 0])

    assert blended("amplitude") == pytest.approx(np.sqrt((1 - weight) * a**2 + weight * b**2), rel=1e-4)
    assert blended("power") == pytest.approx((1 - weight) * a + weight * b, rel=1e-4)


def test_loop_closes_on_a_periodic_picture() -> None:
    period = picture(50)
    unrolled = np.concatenate([period, period[:, :12]], axis=1)
    np.testing.assert_array_equal(close_loop(unrolled, 12, SPEC), period)
    np.testing.assert_array_equal(close_loop(period, 0, SPEC), period)


@pytest.mark.parametrize("overlap", [-1, 50, 51])
def test_overlap_that_does_not_fit_is_refused(overlap: int) -> None:
    with pytest.raises(InputError, match=r"join 1: an overlap of -?\d+ frames does not fit tiles of 50 frames"):
        join([picture(50), picture(60)], [overlap], SPEC)


def test_loop_overlap_longer_than_half_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        close_loop(picture(50), 26, SPEC)

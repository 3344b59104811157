"""Any number of channels becomes one or two by the stated rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.sound.encoding import downmixed

HALF = 0.5**0.5


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

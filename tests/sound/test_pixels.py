"""Mel values, picture values and 8-bit levels: inverse pairs, by the law of every format."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdxl_mel.sound.melspec import FORMATS, named_spec
from sdxl_mel.sound.pixels import dequantise, mel_of_values, quantise, values_of

VALUES = arrays(np.float32, (8, 5), elements=st.floats(0, 1, width=32))


@pytest.mark.parametrize("name", FORMATS)
@given(values=VALUES)
def test_values_survive_the_law(name: str, values: np.ndarray) -> None:
    spec = named_spec(name)
    np.testing.assert_allclose(values_of(mel_of_values(values, spec), spec, peak=1.0), values, atol=2e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_values_stay_within_bounds(name: str) -> None:
    values = values_of(np.geomspace(1e-9, 1e6, 500, dtype=np.float32)[:, None], named_spec(name))
    assert (values.min(), values.max()) == pytest.approx((0.0, 1.0), abs=2e-3)
    assert values.min() >= 0 and values.max() <= 1


@given(values=VALUES)
def test_rounding_costs_half_a_level(values: np.ndarray) -> None:
    assert np.abs(dequantise(quantise(values)) - values).max() <= 0.5 / 255 + 1e-7


def test_every_level_survives() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(dequantise(levels)), levels)


def test_our_law_by_hand() -> None:
    spec = named_spec("std")
    mel = np.array([[0.0, 0.0005, 0.5, 9.0]], dtype=np.float32)
    expected = [0.0, np.log(2.0) / np.log(1001.0), 1.0, 1.0]
    np.testing.assert_allclose(values_of(mel, spec)[0], expected, atol=1e-6)


def test_riffusion_is_dark_where_it_is_loud() -> None:
    spec = named_spec("riffusion")
    assert values_of(np.array([[0.0]], dtype=np.float32), spec)[0, 0] == 1.0
    assert values_of(np.array([[spec.law.reference]], dtype=np.float32), spec)[0, 0] == 0.0

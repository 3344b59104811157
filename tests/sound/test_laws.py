"""Pixel laws, with any constants: monotone, and inverse to each other within half a level."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.sound.laws import DecibelLaw, Law, Log1pLaw, LogLaw, PixelLaw, PowerLaw, Quantity

LAWS = st.one_of(
    st.builds(Log1pLaw, mu=st.floats(1, 1e5), reference=st.floats(0.01, 10)),
    st.builds(DecibelLaw, floor_db=st.floats(-90, -20), ceiling_db=st.floats(-10, 10)),
    st.builds(PowerLaw, exponent=st.floats(0.1, 1), reference=st.floats(0.01, 1e4), inverted=st.booleans()),
    st.builds(LogLaw, floor=st.floats(1e-6, 1e-3), ceiling=st.floats(1, 500)),
)
QUANTITIES = st.sampled_from(get_args(Quantity))
LEVELS = np.arange(256, dtype=np.float32) / 255


@given(law=LAWS, quantity=QUANTITIES)
def test_every_level_returns_within_half_a_level(law: PixelLaw, quantity: Quantity) -> None:
    mel = law.mel(LEVELS, quantity).astype(np.float32)
    np.testing.assert_allclose(law.values(mel, quantity), LEVELS, atol=0.5 / 255)


@given(law=LAWS, quantity=QUANTITIES)
def test_mel_values_rise_or_fall_with_the_levels_as_the_law_says(law: PixelLaw, quantity: Quantity) -> None:
    steps = np.diff(law.mel(LEVELS, quantity))
    assert (steps < 0).all() if law.dark_is_loud else (steps > 0).all()
    values = law.values(np.geomspace(1e-9, 1e6, 500, dtype=np.float32), quantity)
    assert (np.diff(values) <= 0).all() if law.dark_is_loud else (np.diff(values) >= 0).all()


@pytest.mark.parametrize(
    ("law", "quantity", "mel", "value"),
    [
        (Log1pLaw(), "amplitude", 0.0005, np.log(2.0) / np.log(1001.0)),
        (DecibelLaw(), "power", 1e-4, 0.5),
        (DecibelLaw(), "amplitude", 1e-2, 0.5),
        (PowerLaw(exponent=0.25, reference=16.0), "amplitude", 1.0, 0.5),
        (PowerLaw(exponent=0.5, reference=16.0, inverted=True), "amplitude", 1.0, 0.75),
        (LogLaw(floor=1e-4, ceiling=1.0), "amplitude", 1e-2, 0.5),
    ],
)
def test_laws_by_hand(law: PixelLaw, quantity: Quantity, mel: float, value: float) -> None:
    assert law.values(np.array([mel], np.float32), quantity)[0] == pytest.approx(value, abs=1e-6)
    assert law.mel(np.array([value], np.float32), quantity)[0] == pytest.approx(mel, rel=1e-5)


def test_every_law_can_be_named_in_a_spec() -> None:
    assert set(get_args(get_args(Law)[0])) == set(PixelLaw.__subclasses__())

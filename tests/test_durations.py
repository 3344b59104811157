"""Stretches and moments as people write them."""

import pytest

from sdxl_mel.durations import frames_of, seconds_of
from sdxl_mel.errors import InputError
from sdxl_mel.sound.melspec import PRESETS

SPEC = PRESETS["mini"]


@pytest.mark.parametrize(
    ("text", "frames"), [("25%", 64), ("37.5%", 96), ("192", 192), ("1s", 62), ("0.5s", 31), (" 10 % ", 26)]
)
def test_extents(text: str, frames: int) -> None:
    assert frames_of(text, SPEC, "--overlap") == frames


@pytest.mark.parametrize("text", ["", "-3", "25 percent", "1.5", "%", "1e3", "nan"])
def test_bad_extents_name_the_flag(text: str) -> None:
    with pytest.raises(InputError, match="--overlap"):
        frames_of(text, SPEC, "--overlap")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("1:02:03.5", 3723.5), ("0:00", 0)])
def test_moments(text: str, seconds: float) -> None:
    assert seconds_of(text, "schedule") == seconds


@pytest.mark.parametrize("text", ["", "1:", ":30", "-1", "1:2:3:4", "one"])
def test_bad_moments_name_the_place(text: str) -> None:
    with pytest.raises(InputError, match="schedule"):
        seconds_of(text, "schedule")

"""Prompts over time."""

import pytest

from sdxl_mel.captions.schedule import Section, parse_schedule
from sdxl_mel.errors import InputError


def test_sections_in_order() -> None:
    sections = parse_schedule("0:00 solo piano, slow | 0:30 drums enter|1:30.5 end", 120)
    assert sections == [Section(0, "solo piano, slow"), Section(30, "drums enter"), Section(90.5, "end")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write each section"),
        ("piano", "write each section"),
        ("0:00", "write each section"),
        ("0:00 a |", "write each section"),
        ("0:10 a", "begin at 0:00"),
        ("0:00 a | 0:30 b | 0:20 c", "put them in order"),
        ("0:00 a | 2:00 b", "the piece ends at 60 s"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_schedule(text, 60)

"""Messages of the toolkit: one line, in characters that any terminal and file can take."""

from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.errors import InputError, in_one_line, printable


@given(st.text(st.characters()))
def test_a_message_is_one_line_that_can_be_written(text: str) -> None:
    message = str(InputError(text))
    assert len(message.splitlines()) <= 1
    message.encode("utf-8")


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
def test_what_is_printable_stays(text: str) -> None:
    assert in_one_line(text) == printable(text) == text


def test_names_that_move_the_cursor_are_escaped() -> None:
    assert in_one_line("ca\fption\u2028\x1b[31m\udce9") == "ca\\x0cption\\u2028\\x1b[31m\\xe9"

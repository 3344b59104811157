"""Weights of words in prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.captions.weights import Span, parse_weights, plain
from sdxl_mel.errors import InputError


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("(banjo:1.3), piano", [("banjo", 1.3), (", piano", 1.0)]),
        ("((a:2) b:1.5) c", [("a", 3.0), (" b", 1.5), (" c", 1.0)]),
        (r"a \(b\) (c:0.5)", [("a (b) ", 1.0), ("c", 0.5)]),
        ("piano (solo), at 4:30", [("piano (solo), at 4:30", 1.0)]),
    ],
)
def test_words_in_brackets_weigh_what_is_said(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert parse_weights(prompt) == [Span(*span) for span in spans]


@given(st.text(alphabet="ab, ", min_size=1, max_size=12), st.floats(0, 9), st.text(alphabet="cd ", max_size=8))
def test_a_weighted_prompt_says_the_same_words(words: str, weight: float, after: str) -> None:
    assert plain(f"({words}:{weight:.3f}){after}") == words + after


@pytest.mark.parametrize("prompt", ["(banjo:1.3", "banjo:1.3)", "((a:2)", "a) (b:1.2)"])
def test_brackets_that_do_not_match_are_refused(prompt: str) -> None:
    with pytest.raises(InputError, match="bracket (is not closed|closes that was not opened)"):
        parse_weights(prompt)

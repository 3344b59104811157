"""The anchor is first, once, and counted; the tokens are never counted short."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.captions.anchor import anchored, remove_anchor, strip_anchor
from sdxl_mel.captions.tokens import ESTIMATE, estimated_tokens, token_counter
from sdxl_mel.errors import InputError
from tests.tiny_models import byte_tokenizer

ANCHOR = "mel spectrogram"


@settings(deadline=None)
@given(st.text(alphabet="abc ,.;é1-\nmelspctrogra", max_size=400), st.integers(8, 75))
def test_the_anchor_is_first_and_the_rest_fits(caption: str, limit: int) -> None:
    made = anchored(caption, ANCHOR, ESTIMATE, limit).text
    assert made == ANCHOR or made.startswith(f"{ANCHOR}, ")
    assert ESTIMATE.count(made) <= limit


def test_an_anchor_in_the_caption_is_not_repeated() -> None:
    assert anchored("A Mel Spectrogram, mel spectrogram: piano", ANCHOR, ESTIMATE).text == "mel spectrogram, A piano"


@pytest.mark.parametrize(
    ("text", "stripped", "removed"),
    [
        ("Mel Spectrogram: slow piano", "slow piano", "slow piano"),
        ("a mel spectrogram of piano", "a mel spectrogram of piano", "a of piano"),
        ("mel spectrogram, piano, mel spectrogram", "piano, mel spectrogram", "piano"),
        ("mel spectrogram", "mel spectrogram", ""),
        ("piano", "piano", "piano"),
    ],
)
def test_the_anchor_is_taken_off_the_start_or_out_of_everywhere(text: str, stripped: str, removed: str) -> None:
    assert strip_anchor(text, ANCHOR) == stripped
    assert remove_anchor(text, ANCHOR) == removed
    assert strip_anchor(text, "") == remove_anchor(text, "") == text


def test_what_is_dropped_is_said() -> None:
    made = anchored("slow piano, soft strings, a bright and long flute melody", ANCHOR, ESTIMATE, limit=12)
    assert made.text == "mel spectrogram, slow piano, soft strings"
    assert made.dropped == "a bright and long flute melody"
    assert anchored("one two three four five", ANCHOR, ESTIMATE, limit=8).text == "mel spectrogram, one two three"


def test_no_anchor_is_possible_and_a_long_one_is_not() -> None:
    assert anchored("piano", "", ESTIMATE).text == "piano"
    with pytest.raises(InputError, match="76 tokens, CLIP reads 75"):
        anchored("piano", "a " * 76, ESTIMATE)


@pytest.mark.parametrize(
    # Counted once with CLIP's own vocabulary (bpe_simple_vocab_16e6).
    ("text", "tokens"),
    [("mel spectrogram", 3), ("slow and soft piano, 120 bpm", 9), ("it's a glockenspiel!", 7), ("!!!", 1)],
)
def test_the_estimate_is_not_under_clips_count(text: str, tokens: int) -> None:
    assert tokens <= estimated_tokens(text) <= 2 * tokens


def test_a_base_counts_with_its_own_tokenizer(tmp_path) -> None:
    byte_tokenizer(pad="!").save_pretrained(tmp_path / "tokenizer")
    counter = token_counter(str(tmp_path))
    assert counter.count("ab c") == 3  # its vocabulary spells every letter


@pytest.mark.parametrize("kind", ["file", "nowhere"])
def test_a_base_without_a_tokenizer_is_refused(tmp_path, kind: str) -> None:
    place = tmp_path / "model.safetensors"
    if kind == "file":
        place.write_bytes(b"x")
    with pytest.raises(InputError, match="--base .*(holds no tokenizer|cannot be read)"):
        token_counter(str(place))

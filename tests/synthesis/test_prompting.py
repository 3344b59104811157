"""Long prompts in chunks and weighted words, against what plain encoding makes of the parts."""

from pathlib import Path

import pytest
import torch

from sdxl_mel.captions.weights import Span
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.synthesis.prompting import chunked, encode_text, equally_long

TOKENS = 77


@pytest.fixture(scope="module")
def base(slim_sdxl: Path) -> Base:
    return open_base(slim_sdxl)


def test_a_short_prompt_is_encoded_as_ever(base: Base) -> None:
    for prompt in ("", "slow piano, quiet", "piano (solo)"):
        ours, plain = encode_text(base, prompt, 0), encode_prompts(base, [prompt], 0)
        assert all(torch.equal(*pair) for pair in zip(ours, plain))


def test_a_long_prompt_is_its_chunks_after_each_other(base: Base) -> None:
    count = lambda text: len(base.reading_tokenizer()(text, add_special_tokens=False).input_ids)  # noqa: E731
    phrases = [f"instrument number {number}, " for number in range(40)]
    chunks = ["".join(span.text for span in chunk) for chunk in chunked([Span("".join(phrases), 1.0)], count)]
    assert "".join(chunks) == "".join(phrases)
    assert all(count(chunk) <= TOKENS - 2 for chunk in chunks)
    assert all(chunk.startswith("instrument") for chunk in chunks)
    with torch.no_grad():
        whole, parts = encode_text(base, "".join(phrases), 0), [encode_prompts(base, [chunk], 0) for chunk in chunks]
    assert whole.prompt_embeds.shape[1] == TOKENS * len(chunks)
    assert torch.equal(whole.prompt_embeds, torch.cat([part.prompt_embeds for part in parts], dim=1))
    assert torch.equal(whole.pooled_prompt_embeds, parts[0].pooled_prompt_embeds)


def test_a_phrase_longer_than_a_chunk_is_parted_between_words() -> None:
    count = lambda text: len(text.split())  # noqa: E731
    chunks = chunked([Span("word " * 200, 1.0)], count)
    assert [sum(count(span.text) for span in chunk) for chunk in chunks] == [75, 75, 50]


def test_weights_move_their_own_tokens_from_the_empty_prompt(base: Base) -> None:
    with torch.no_grad():
        plain, empty = (encode_prompts(base, [text], 0).prompt_embeds for text in ("slow banjo, fast", ""))
        heavier, none = (encode_text(base, f"slow (banjo:{weight}), fast", 0).prompt_embeds for weight in (1.5, 0))
    tokenizer = base.reading_tokenizer()
    before, after = (len(tokenizer(text, add_special_tokens=False).input_ids) + 1 for text in ("slow ", "slow banjo"))
    own = slice(before, after)
    torch.testing.assert_close(heavier[:, own], empty[:, own] + 1.5 * (plain[:, own] - empty[:, own]))
    torch.testing.assert_close(none[:, own], empty[:, own])
    for other in (slice(0, before), slice(after, None)):
        torch.testing.assert_close(heavier[:, other], plain[:, other])


def test_texts_of_one_drawing_are_filled_with_empty_chunks() -> None:
    short, long, empty = (
        TextEmbeddings(torch.full((1, n, 2), v), torch.zeros(1, 2)) for n, v in ((3, 1.0), (9, 2.0), (3, 0.0))
    )
    filled, same = equally_long([short, long], empty)
    assert filled.prompt_embeds[0, :, 0].tolist() == [1, 1, 1] + [0] * 6
    assert torch.equal(same.prompt_embeds, long.prompt_embeds)

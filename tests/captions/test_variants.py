"""Shuffles keep the anchor, keep every tag, and leave sentences alone."""

from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.captions.variants import caption_variants, split_tags

ANCHOR = "mel spectrogram"
TAGS = st.lists(
    st.text("abcdefg", min_size=1, max_size=6).filter(lambda tag: tag != "a"), min_size=2, max_size=9, unique=True
)


@given(TAGS, st.integers(1, 8), st.integers(0, 3))
def test_laws(tags: list[str], count: int, seed: int) -> None:
    caption = ", ".join([ANCHOR, *tags])
    variants = caption_variants(caption, ANCHOR, count, seed)
    assert variants[0] == caption
    assert 1 <= len(variants) <= count
    assert len(set(variants)) == len(variants)
    assert all(variant.startswith(f"{ANCHOR}, ") for variant in variants)
    assert all(sorted(variant.split(", ")) == sorted(caption.split(", ")) for variant in variants)
    assert variants == caption_variants(caption, ANCHOR, count, seed)
    assert caption_variants(caption, ANCHOR, count + 2, seed)[: len(variants)] == variants


def test_as_many_as_there_are() -> None:
    assert len(caption_variants(f"{ANCHOR}, one, two, three", ANCHOR, 100)) == 6
    assert len(caption_variants(f"{ANCHOR}, 1, 2, 3, 4, 5, 6, 7", ANCHOR, 20)) == 20
    assert caption_variants(f"{ANCHOR}, one", ANCHOR, 5) == (f"{ANCHOR}, one",)
    assert caption_variants("", ANCHOR, 5) == ("",)


def test_sentences_are_never_split() -> None:
    for caption in (
        f"{ANCHOR}, A sad song. Piano, strings, and bells.",
        f"{ANCHOR}, the violin, which is soft, leads, and the piano follows",
        f"{ANCHOR}, slow song with a guitar, a flute, drums",
        f"{ANCHOR}, a long remark of many words in a row, piano, violin",
    ):
        assert caption_variants(caption, ANCHOR, 8) == (caption,)


def test_order_depends_on_seed_and_caption() -> None:
    tags = ", ".join("abcdefgh")
    orders = {caption_variants(f"{ANCHOR}, {tags}", ANCHOR, 2, seed)[1] for seed in range(8)}
    assert len(orders) > 1


def test_without_anchor_all_tags_move() -> None:
    assert split_tags("violin, slow", ANCHOR) == ([], ["violin", "slow"])
    assert split_tags("mel spectrogram", ANCHOR) == (["mel spectrogram"], [])

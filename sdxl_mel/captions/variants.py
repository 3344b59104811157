"""Variants of one caption: its comma-separated parts in other orders, the anchor always first."""

import re
from collections.abc import Iterator
from itertools import islice, permutations
from math import factorial

import numpy as np

from sdxl_mel.seeding import numpy_generator

SENTENCE = re.compile(
    r"[.!?;:](?:\s|$)|\b(?:is|are|was|were|has|have|with|and then|while|which|that|plays?|features?)\b"
)
"""What a list of tags has not; a comma beside it may stand inside a sentence."""
MOST_WORDS_OF_A_TAG = 5
ALL_ORDERS_UP_TO = 5
"""Parts of which all orders are listed; more parts are shuffled at random until enough orders are found."""


def caption_variants(caption: str, anchor: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """Return up to `count` variants, the caption as it is first.

    Only a list of tags is shuffled; a caption with a sentence in it has one variant. The anchor stays first.

    >>> caption_variants("mel spectrogram, violin, slow", "mel spectrogram", 2)
    ('mel spectrogram, violin, slow', 'mel spectrogram, slow, violin')
    >>> caption_variants("mel spectrogram, a violin, which is slow, plays", "mel spectrogram", 4)
    ('mel spectrogram, a violin, which is slow, plays',)
    """
    head, tags = split_tags(caption, anchor)
    if len(tags) < 2:
        return (caption,)
    orders = (", ".join([*head, *order]) for order in _orders(tags, numpy_generator(seed, "caption variants", caption)))
    others = islice((text for text in orders if text != ", ".join([*head, *tags])), max(0, count - 1))
    return (caption, *others)


def split_tags(caption: str, anchor: str) -> tuple[list[str], list[str]]:
    """Return the anchor (if the caption starts with it) and the tags after it; no tags if there is a sentence."""
    parts = [part.strip() for part in caption.split(",") if part.strip()]
    anchored = bool(anchor) and parts[:1] == [anchor]
    head, tags = (parts[:1], parts[1:]) if anchored else ([], parts)
    sentence = any(SENTENCE.search(tag.lower()) or len(tag.split()) > MOST_WORDS_OF_A_TAG for tag in tags)
    return head, [] if sentence else tags


def _orders(tags: list[str], generator: "np.random.Generator") -> Iterator[tuple[str, ...]]:
    """Yield different orders of `tags`: all of them in a random sequence, or random ones of many."""
    if len(tags) <= ALL_ORDERS_UP_TO:
        orders = list(permutations(tags))
        yield from dict.fromkeys(orders[index] for index in generator.permutation(len(orders)))
        return
    seen: set[tuple[str, ...]] = set()
    for _ in range(factorial(ALL_ORDERS_UP_TO)):
        order = tuple(tags[index] for index in generator.permutation(len(tags)))
        if order not in seen:
            seen.add(order)
            yield order

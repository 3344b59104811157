"""Captions as the UNet's training sees them: parts dropped, variants, with and without the anchor."""

import numpy as np

ANCHOR = "mel spectrogram"
EMPTY_SHARE, TAGS_SHARE, ANCHOR_SHARE, DROPPED_SHARE = 0.1, 0.75, 0.5, 0.15
ALWAYS_KEPT = 2
"""The first two tags, "instrumental" and who plays, are never dropped alone."""


def drawn_caption(captions: list[str], generator: np.random.Generator) -> str:
    """Return one caption of a track for one step: empty, tags with some left out, a sentence or instruments alone."""
    if generator.random() < EMPTY_SHARE:
        return ""
    tags, *others = captions
    if generator.random() < TAGS_SHARE:
        words = tags.split(", ")
        kept = [word for at, word in enumerate(words) if at < ALWAYS_KEPT or generator.random() >= DROPPED_SHARE]
        caption = ", ".join(kept)
    else:
        caption = str(generator.choice(others))
    return f"{ANCHOR}, {caption}" if generator.random() < ANCHOR_SHARE else caption

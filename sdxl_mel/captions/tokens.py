"""How many CLIP tokens a caption has: counted by a base's own tokenizer, or estimated where there is none.

The estimate needs no tokenizer: a token for every 5 letters begun in a word, for every digit, and for every two signs
begun. Against CLIP's vocabulary on the 1,106 captions of the Song Describer Dataset it is 1.24 times the truth; it is
under it in 4 captions, by 1 token in English ones and by 6 of 40 in a Spanish one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdxl_mel.assets import base_path, may_be_hub_id
from sdxl_mel.errors import InputError

FOLDER = "tokenizer"
MAX_TOKENS = 75
"""CLIP reads 77 tokens, the first and the last of which are its own."""
LETTERS_PER_TOKEN = 5
_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)(?![^\W\d_])|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of a text without CLIP's start and end; `name` says how."""

    name: str
    count: Callable[[str], int]


def estimated_tokens(text: str) -> int:
    """Return a cautious estimate of the CLIP tokens of a text, from its letters alone.

    >>> estimated_tokens("mel spectrogram, slow piano")
    7
    """
    return sum(_estimate(piece) for piece in _PIECE.findall(text.lower()))


ESTIMATE = TokenCounter("estimate of one token per 5 letters begun", estimated_tokens)


def token_counter(base: str | None) -> TokenCounter:
    """Return the counter of a base (hub id, diffusers folder, single file or "mini"), or the estimate for None.

    Raises InputError for a base whose tokenizer cannot be read.
    """
    if base is None:
        return ESTIMATE
    tokenizer = _tokenizer_of(base)
    return TokenCounter(f"tokenizer of {base}", lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))


def _tokenizer_of(base: str) -> Any:
    from sdxl_mel.files.tokenizer import read_tokenizer, tokenizer_of_single_file

    place = base_path(base)
    try:
        if place.is_file():
            return tokenizer_of_single_file(place)
        if not place.is_dir() and not may_be_hub_id(base):
            raise InputError(f"{base}: no such folder or file")
        return read_tokenizer(place, FOLDER)
    except InputError as error:
        reason = f"its tokenizer cannot be read ({error})"
        raise InputError(f"--base {base}: {reason}; leave --base out to estimate") from error


def _estimate(piece: str) -> int:
    if piece[0].isalpha():
        return -(-len(piece.encode()) // LETTERS_PER_TOKEN)
    if piece[0].isdigit() or piece in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        return 1
    return -(-len(piece) // 2) if piece.isascii() else len(piece.encode())

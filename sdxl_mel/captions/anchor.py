"""The anchor: a phrase that stands first, once, in every training caption, and is counted among its tokens."""

import re
from dataclasses import dataclass

from sdxl_mel.captions.tokens import MAX_TOKENS, TokenCounter
from sdxl_mel.errors import InputError

_PHRASE_END = re.compile(r"[,;.!?]+\s+|\s+[-–]\s+")
DROP_RULE = (
    "a caption too long loses its last phrase (what follows its last comma or stop), again and again until it fits; "
    "a single phrase too long loses its last words; the anchor is never cut"
)


@dataclass(frozen=True)
class Anchored:
    """A caption with its anchor, and what did not fit."""

    text: str
    dropped: str = ""


def anchored(caption: str, anchor: str, counter: TokenCounter, limit: int = MAX_TOKENS) -> Anchored:
    """Return `anchor, caption` within `limit` tokens; see DROP_RULE. Raises InputError for an anchor that is too long.

    >>> from sdxl_mel.captions.tokens import ESTIMATE
    >>> anchored("Mel spectrogram: calm piano, soft", "mel spectrogram", ESTIMATE).text
    'mel spectrogram, calm piano, soft'
    """
    if counter.count(anchor) > limit:
        raise InputError(
            f"the anchor {anchor!r} has {counter.count(anchor)} tokens, CLIP reads {limit}; shorten --anchor"
        )
    whole = remove_anchor(caption, anchor)
    kept = whole
    while kept and counter.count(_joined(anchor, kept)) > limit:
        kept = _shorter(kept)
    return Anchored(_joined(anchor, kept), whole[len(kept) :].strip(" ,;.-–"))


def strip_anchor(prompt: str, anchor: str) -> str:
    """Return a prompt without the anchor at its start: the words about the music alone; an anchor alone stays.

    >>> strip_anchor("Mel spectrogram: a spectrogram of mel", "mel spectrogram")
    'a spectrogram of mel'
    """
    if anchor and prompt.lower().startswith(anchor.lower()):
        return prompt[len(anchor) :].lstrip(" ,.:;-") or prompt
    return prompt


def remove_anchor(caption: str, anchor: str) -> str:
    """Return a caption without the anchor, wherever and however often it stands in it.

    >>> remove_anchor("piano, mel spectrogram, slow", "mel spectrogram")
    'piano, slow'
    """
    if not anchor.strip():
        return caption
    pattern = re.compile(rf"(?<!\w){re.escape(anchor.strip())}(?!\w)\s*[,:;]?\s*", re.IGNORECASE)
    return re.sub(r"\s+", " ", re.sub(r"(?:,\s*)+,", ",", pattern.sub("", caption))).strip(" ,;:")


def _joined(anchor: str, caption: str) -> str:
    return ", ".join(part for part in (anchor.strip(), caption) if part)


def _shorter(caption: str) -> str:
    ends = list(_PHRASE_END.finditer(caption.rstrip(" ,;.!?-–")))
    if ends:
        return caption[: ends[-1].start()]
    return " ".join(caption.split()[:-1])

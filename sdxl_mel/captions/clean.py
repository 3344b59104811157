"""Clean a caption by deterministic rules, every change logged; genre, instruments, tempo, mood, production stay."""

import re
import unicodedata
from collections.abc import Sequence

from sdxl_mel.captions.boilerplate import without_hollow_sentences, without_tails
from sdxl_mel.captions.edits import Edited
from sdxl_mel.captions.vocals import without_remarks

_QUOTES = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "′": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "`": "'"}
)
_LINE = re.compile(r"[ \t]*([,.;:!?]?)[ \t]*[\r\n]+\s*")
_LINK = re.compile(r"\(?\b(?:https?://|www\.)\S+|\S+@\S+\.\w+|\(?\b[\w-]+\.(?:com|org|net)\b(?:/\S*)?", re.IGNORECASE)
_HANDLE = re.compile(r"(?<!\w)[@#](?=\w)")
_SPACE = re.compile(r"\s\s+|[^\S ]")
_QUOTE = re.compile(r'"')
_NAME = (
    r"[A-Z][\w'’.&-]*(?:(?: | & | and | of | of a | the )[A-Z][\w'’.&-]*)*"
    r"(?: and such| and others| or something(?: like that)?)?"
)
_LIKE = (
    r"(?i:inspired by|reminiscent of|similar to|sounds? (?:just |a bit |a lot )?like|in the style of|in the vein of|"
    r"influenced by|a la|à la|covered by|performed by|composed by|written by)"
)
_LIKENESS = re.compile(
    r"(?:,?\s*(?:and|but|then|when|it|that|which|the (?:song|track|piece|music)) )*\s*"
    rf"\b{_LIKE}\s+(?:(?:the|a|an|early|late|band|artists?) )*{_NAME}"
)
_GENRE_NAMES = re.compile(
    r"\b(?:African|American|Arabic|Asian|Bossa|Brazil\w*|British|Celtic|Chin\w+|Christmas|East\w*|EDM|Europ\w+|French|German|"
    r"Greek|Hip|House|Ind\w+|Irish|Ital\w+|Japan\w*|Jazz|Latin\w*|Mexic\w+|Middle|R&B|RnB|Spanish|Techno|UK|US|West\w*|"
    r"Buddha|Caribbean|Hawai\w*|Nintendo|MIDI|RPG|DJ|TV|Sci|AM|FM|BPM|Rhodes|Hammond|Moog)\b"
)
_TIDY = (
    (_SPACE, " "),
    (re.compile(r"\(\s*\)|\[\s*\]"), ""),
    (re.compile(r"(?:\s*[,;:])+\s*(?=[,;:])"), ""),
    (re.compile(r"(?:\s*[,;:])+\s*(?=[.!?])"), ""),
    (re.compile(r"(?<=[.!?])(?:\s*[.,;:!?])+"), ""),
    (re.compile(r"\s+(?=[,.;:!?](?:\s|$))"), ""),
    (re.compile(r"^[\s,;:.!?)–-]+|[\s,;:(–-]+$"), ""),
)

_MEANING = {"use", "effect", "opinion", "likeness", "artist", "no voice", "voice"}
"""Rules that take words out of a sentence, which may leave the rest without sense."""


def clean(caption: str, names: Sequence[str] = (), instrumental: bool = True) -> Edited:
    """Return the cleaned caption with its log; "" where nothing about the music is left.

    `names` are artist names to take out; `instrumental` also removes remarks about voices.

    >>> clean("“Calm piano”, suitable for yoga. https://x.org").text
    'Calm piano.'
    """
    edited = normalise(Edited(caption))
    edited = edited.sub("link", _LINK).sub("handle", _HANDLE).sub("quote", _QUOTE)
    edited = _without_names(edited, names)
    edited = tidy(without_tails(tidy(edited)))
    if instrumental:
        edited = tidy(without_remarks(edited))
    if any(edit.rule in _MEANING for edit in edited.edits):
        edited = tidy(without_hollow_sentences(edited))
    return edited if re.search(r"[^\W\d_]", edited.text) else edited.whole("empty", "")


def normalise(caption: Edited) -> Edited:
    """Return NFKC text on one line: straight quotes, no control characters, lines joined by commas."""
    text = unicodedata.normalize("NFKC", caption.text).translate(_QUOTES)
    edited = caption.whole(
        "unicode", "".join(char for char in text if char.isspace() or unicodedata.category(char)[0] != "C")
    )
    edited = edited.whole("space", edited.text.strip())
    return edited.sub("line", _LINE, lambda match: f"{match.group(1) or ','} ").sub("space", _SPACE, " ")


def tidy(caption: Edited) -> Edited:
    """Close the gaps that removals leave: doubled commas, spaces before stops, stops at the start."""
    edited = caption
    for pattern, after in _TIDY:
        edited = edited.sub("tidy", pattern, after)
    return edited


def _without_names(caption: Edited, names: Sequence[str]) -> Edited:
    edited = caption.sub(
        "likeness", _LIKENESS, lambda match: match.group() if _GENRE_NAMES.search(match.group()) else ""
    )
    for name in sorted((name for name in names if len(name.strip()) > 2), key=len, reverse=True):
        pattern = re.compile(
            rf"(?:\s*\b(?:by|from|like|of)\s+)?(?<!\w){re.escape(name.strip())}(?:'s)?(?!\w)", re.IGNORECASE
        )
        edited = edited.sub("artist", pattern)
    return edited

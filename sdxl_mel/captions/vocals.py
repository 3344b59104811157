"""Whether a human voice can be heard in a track, by what all its captions and tags say; and remarks that none can."""

import re
from dataclasses import dataclass

from sdxl_mel.captions.boilerplate import without_tails
from sdxl_mel.captions.edits import Edited

_LANGUAGES = (
    "arabic|chinese|danish|dutch|english|finnish|french|german|greek|hebrew|hindi|italian|japanese|korean|latin|"
    "mandarin|norwegian|polish|portuguese|russian|spanish|swedish|turkish"
)
_VOICE = (
    r"(?:vocals?|vocally|vocali[sz]\w*|vocalists?|vocoders?|voices?|sings|singing|singers?|sung|sang|"
    r"rap|raps|rapped|rapping|rappers?|choirs?|choral|chant(?:s|ed|ing)?|lyrics?|a[ -]?cappella|acapella|"
    r"beatbox\w*|yodel\w*|croon\w*|falsetto|spoken|speech|speaking|recit(?:es|ed|ing|ation)|ad-?libs?|karaoke)"
)
_MAYBE = (
    r"(?:sing|narrat(?:es|ed|ing|ion|or)|conversations?|talking|humm(?:s|ed|ing)|whisper\w*|shout\w*|scream(?:s|ing)?|"
    r"growl(?:s|ing)?|laugh\w*|scat|poem|harmoni[sz]ing)"
)
_UNLIKE = re.compile(
    r"\b(?:vocal|voice)[- ]?like|voice[- ]leading|talking drums?|(?:musical|in|having a|have their) conversations?|"
    r"(?:screaming|growling|singing|whispering) (?:guitars?|synth\w*|bass\w*|sax\w*|strings?|violins?|bowls?|leads?)",
    re.IGNORECASE,
)
_NONE = (
    r"(?:no|not? any|without(?: any)?|with no|lack(?:s|ing)?(?: of)?|absence of|absent of|free of|devoid of|minus|zero|"
    r"(?:does|do|has|have|is|are)(?:n'?t| not)(?: \w+)?(?: any)?)"
)
_INTRODUCED = r"(?:and|but|with|has|having|there (?:is|are|'s)|it's|it is|it has)"
ABSENT = re.compile(
    rf"(?:,?\s*\b(?:{_INTRODUCED}\s+)+)?\b{_NONE}[\s-]+(?:(?!vocal)[a-z]+[\s-]+){{0,2}}?{_VOICE}"
    rf"(?:\s*(?:,|/|or|and|nor)\s*(?:no )?{_VOICE})*(?:\s+(?:at all|whatsoever|in it|present))?\b"
    rf"|\bnon[- ]?{_VOICE}\b"
    rf"|\b{_VOICE}(?:[- ](?:free|less)| (?:is|are) (?:absent|missing))\b|\bvoiceless\b",
    re.IGNORECASE,
)
PRESENT = re.compile(
    rf"\b{_VOICE}\b|\b(?:fe)?male\b|\b(?:in|not in) (?:{_LANGUAGES})\b(?! america| style)"
    rf"|\b(?:{_LANGUAGES})[- ](?:language|lyric\w*)",
    re.IGNORECASE,
)
PERHAPS = re.compile(rf"\b{_MAYBE}\b", re.IGNORECASE)
INSTRUMENTAL = re.compile(r"\binstrumentals?\b|\bkaraoke version\b", re.IGNORECASE)
CLAUSE = re.compile(r"[^,.;!?]+[,;]?\s*")
_IDIOM = re.compile(
    r"\b(?:vocal|voice)[- ]?like\s+|\bsinging (?=bowls?|guitars?|strings?|violins?|saxophones?)", re.IGNORECASE
)

EMBEDDER_THRESHOLD = 0.5
"""An audio embedder's probability of a voice from which it counts as evidence."""


@dataclass(frozen=True)
class Decision:
    """Whether a track counts as vocal, and the words that say so."""

    vocal: bool
    evidence: tuple[str, ...] = ()


def decide(captions: tuple[str, ...], tags: tuple[str, ...] = (), score: float | None = None) -> Decision:
    """Decide over all captions and tags of a track; one plain mention of a voice in any of them is enough.

    Words that need not mean a voice (humming, shouts) count unless a caption says that the track is instrumental, or
    they stand in a tail ("that makes one sing while driving").
    `score` is an audio embedder's probability of a voice; words that name a voice win over it.

    >>> decide(("A calm piano piece", "soft piano and a female singer")).vocal
    True
    >>> decide(("Piano, no vocals at all",)).vocal
    False
    """
    texts = [_without_unlike(text.replace("---", " ")) for text in (*captions, *tags)]
    instrumental = any(INSTRUMENTAL.search(text) or ABSENT.search(text) for text in texts)
    plain = [ABSENT.sub(" ", text) for text in texts]
    asides = [ABSENT.sub(" ", _without_unlike(without_tails(Edited(text)).text)) for text in texts]
    named = tuple(match.group().lower() for text in plain for match in PRESENT.finditer(text))
    if named:
        return Decision(True, tuple(dict.fromkeys(named)))
    hinted = tuple(match.group().lower() for text in asides for match in PERHAPS.finditer(text))
    if hinted and not instrumental:
        return Decision(True, tuple(dict.fromkeys(hinted)))
    if score is not None and score >= EMBEDDER_THRESHOLD and not instrumental:
        return Decision(True, (f"voice heard with probability {score:.2f}",))
    return Decision(False)


def mentions_voice(text: str) -> bool:
    """Say whether a text has any word of voices, even one that says there are none."""
    plain = _without_unlike(text)
    return bool(PRESENT.search(plain) or PERHAPS.search(plain))


def without_remarks(caption: Edited) -> Edited:
    """Remove what a caption of an instrumental track says about voices: "no vocals", and any clause that names one."""
    edited = caption.sub("voice idiom", _IDIOM).sub("no voice", ABSENT)
    while mentions_voice(edited.text):
        clause = next((match for match in CLAUSE.finditer(edited.text) if mentions_voice(match.group())), None)
        start, end = clause.span() if clause else (0, len(edited.text))
        edited = edited.splice("voice", start, end)
    return edited


def _without_unlike(text: str) -> str:
    return _UNLIKE.sub(" ", text)

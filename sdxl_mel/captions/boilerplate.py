"""Use-case and opinion tails: what music is for, where it is heard, what it does to the writer, whom it resembles.

A tail starts at a trigger and runs to the end of its clause; it stops before a part that says something about the
music itself ("perfect for a party, with heavy drums" keeps the drums).
"""

import re

from sdxl_mel.captions.edits import Edited
from sdxl_mel.captions.lexicon import MUSIC_WORDS


def _any(*groups: str) -> str:
    """Return a pattern for any of the words in `groups`; an underscore stands for a space inside one."""
    words = [word.replace("_", " ") for group in groups for word in group.split()]
    return f"(?:{'|'.join(words)})"


def _maybe(words: str) -> str:
    """Return a pattern for one of `words` with a space behind it, or nothing."""
    return f"(?:{_any(words)} )?"


_ADVERB = rf"(?:\w+ly |{_any('also well very more most quite just even best probably maybe perhaps')} )*"
_MODAL = _any("could can would might may should will 'd 'll")
_GOOD = _any("perfect good great nice ideal")
_LINK = _maybe("that which this it and")
_SUBJECT = _maybe("and it which that")
_WHERE = _any("in at on while when during as by alone doing to")
_USED = _any(
    "used played listened(?:_to)? found enjoyed placed featured imagined danced suitable suited perfect great ideal",
    "good nice fit fitted fitting included appropriate seen put sampled associated",
    rf"heard(?:_possibly)?_{_WHERE}",
)
_FIT = _any(
    "suitable suited perfect ideal great excellent appropriate fitting apt adequate amazing wonderful nice good best",
    "tailored meant designed intended made useful handy useable usable",
)
_PERSON = _any(
    "you one me us people someone listeners? the_listener the_audience anyone everyone your_(?:body|feet|head)"
)
_PLACE = _any(
    "night evening afternoon morning day dinner party parties road_?trip trip drive walk bar caf[eé] club wedding date",
    "scene video vlog workout movie film game soundtrack commercial advert\\w* studying relaxing sleeping dancing",
    "partying meditation yoga background venue festival holiday vacation beach lounge restaurant shop shopping",
    "supermarket hotel elevator documentary gym rave ceremony celebration",
)
_CAUSES = _any(
    "makes? making made lets? letting leaves? leaving gets? getting keeps? keeping puts? putting takes? taking",
    "invites? inviting encourag\\w+ transports? transporting helps? helping wants? induc\\w+",
)
_DOING = "dance relax chill study sleep meditate unwind drink party work_?out drive cry dream vibe listen"
_BUSY = "dancing relaxing chilling studying sleeping meditating working partying driving unwinding listening"
_I_VERBS = _any(
    "'m 'd 've _am _was _feel _felt _think _guess _believe _like _really _love _hate _dislike _imagine _would _could",
    "_can _hear _see _find _enjoy _don'?t _want _cannot _can'?t _must _may _get _have _might",
)
_TRIGGERS = {
    "use": (
        rf"{_LINK}{_MODAL} {_ADVERB}be {_ADVERB}{_USED}\b(?! (?:slow|fast|dark))",
        rf"{_LINK}(?:is|are|was) {_ADVERB}{_any('used heard played found listened_to')} "
        rf"{_any('in at for as during on by when while')}\b",
        rf"{_ADVERB}{_maybe('great good perfect nice')}fit for\b",
        rf"(?:an? )?{_ADVERB}{_FIT} {_any('for to as when while in')}\b",
        rf"{_LINK}(?:{_MODAL} )?{_ADVERB}(?P<fits>fits?|suits?|belongs?) {_ADVERB}"
        rf"{_maybe('well great perfect nicely right')}{_any('in into for with as on to at')}\b",
        rf"{_LINK}(?:{_MODAL} {_ADVERB}(?:work|go)|(?:works|goes) {_ADVERB}{_any('well great perfectly nicely')}) "
        rf"{_ADVERB}{_maybe('well great')}{_any('in for with as on at')}\b",
        rf"{_LINK}{_MODAL} {_ADVERB}(?:accompany|be an?|make an?)(?: \w+)? (?:perfectly|{_GOOD} (?:\w+ )?"
        rf"{_any('soundtrack way pairing background choice match song music track fit')})\b",
        rf"making it {_maybe('an? the')}{_GOOD}\b",
        r"(?:a )?perfect(?:ly)? match for\b",
        rf"{_maybe('which that and')}(?:might be|is|are) {_maybe('very really')}{_any('fun pleasant nice enjoyable')} "
        r"to (?:listen|hear)(?: to)?\b",
        rf"for {_maybe('an? the your those some any when that')}(?:[a-z'-]+ ){{0,4}}?(?!bars\b){_PLACE}s?\b",
        rf"(?:(?:while )?(?:keeping )?(?:the |a )?(?:desire|urge) )?(?:for|to) {_any(_DOING)}\b(?: to| with| in)?",
        rf"for {_any(_BUSY)}\b",
        rf"(?:while|when|as) {_any('you one someone walking having sitting drinking watching', _BUSY)}\b",
        rf"listen(?:ing)? (?:to )?(?:it|this) {_any('when while in at on during with')}\b",
        r"(?:ready|best) to (?:be|dance|hear)\b",
    ),
    "effect": (
        rf"{_LINK}{_ADVERB}{_CAUSES} {_ADVERB}{_PERSON}\b",
        rf"without leaving {_PERSON}\b",
        rf"(?:that|which|where|and|so|as) {_PERSON} {_MODAL}\b(?! hear)",
        rf"{_PERSON} {_MODAL} (?:\w+ )?"
        rf"{_any('dance listen hear_(?:in|at|on|when|while) imagine play use relax feel bob nod enjoy put')}\b",
        rf"{_PERSON} {_MODAL} (?:\w+ )?(?:find|expect|see)\b",
        r"(?:possibly|probably|perhaps) leading to\b",
        r"(?:and |it )?feels? like (?:i'?m|i am|you'?re|you are|i|you|one|we)\b",
        r"if you(?:'re| are)?\b",
    ),
    "opinion": (
        rf"(?:and |but |which |that |as if |because |, )?i{_I_VERBS}\b",
        rf"{_SUBJECT}{_maybe('will may can')}{_maybe('kind_of somewhat almost strongly slightly')}"
        r"remind(?:s|ing|ed)? (?:me|you|one|us|the listener)\b",
        rf"{_SUBJECT}(?P<reminds>remind(?:s|ing)?)(?: a bit| a little)? (?:of|to|some)\b",
        rf"{_SUBJECT}makes? (?:me|you|one|us) (?:think|feel|want)\b",
        rf"in my {_any('opinion mind head club view')}\b",
        r"for my (?:taste|liking)\b",
    ),
}
_JOINING = _any("and but or so that which it is it's its that's also being as_well_as an? very this")
_JOIN = rf"(?:[\s,;:–-]*\b{_JOINING}\b)*[\s,;:–-]*"
_NEXT = _any(
    "and but with featuring featured accompanied while although though played has having using then made thanks_to",
    "because_of due_to",
)
_STOPPED = re.compile(rf"(?:\s*[,;:]\s*|\s+){_NEXT}\b|\s*[,;]\s*|\s+[-–]\s+", re.IGNORECASE)
_WITH = re.compile(r"\s*,?\s*(?:with|featuring|accompanied)\b", re.IGNORECASE)
_AND = re.compile(r"\s*,?\s*and\b", re.IGNORECASE)
_HOLLOW = _any(
    "it this that these the a an its song songs track tune music piece type kind of vibe genre sound sounds whole",
    "overall something someone great is are would could can be very really and which seems? feels? well i one you bit",
    "for to like as nice good 's then when so but also intro groove beat part start starts begins beginning ends?",
    "first last perfect soundtrack",
)
_EMPTY_SUBJECT = re.compile(rf"\s*(?:{_HOLLOW}\b[\s,']*)*", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:[^.!?]|[.](?=\w))+[.!?]*\s*")
_UNFINISHED = _any(
    "and but or with that which what who where it_is it's is is_sure are also so for to will may would might could can",
    "probably possibly then makes? feels as like one",
)
_DANGLING_BEFORE = re.compile(
    rf"(?:[\s,]*\b{_UNFINISHED}\b|\s*,\s*(?:the|this) (?:track|song|piece|pièce|music)\b)+\s*$", re.IGNORECASE
)
_DANGLING_AFTER = re.compile(r"[\s,;]*(?:(?:and|but|so|or|which|that|with)\b\s*)?", re.IGNORECASE)

TAILS = {
    rule: re.compile(rf"(?P<join>{_JOIN})\b(?P<trigger>{'|'.join(alternatives)})", re.IGNORECASE)
    for rule, alternatives in _TRIGGERS.items()
}


def without_tails(caption: Edited) -> Edited:
    """Remove every use-case and opinion tail.

    >>> without_tails(Edited("Calm guitar, perfect for a rainy evening, with soft strings.")).text
    'Calm guitar, with soft strings.'
    """
    edited, rule = caption, ""
    for rule, pattern in TAILS.items():
        start = 0
        while match := pattern.search(edited.text, start):
            begin, end = _extent(edited.text, match)
            if end <= begin:
                start = match.end()
                continue
            edited = edited.splice(rule, begin, end)
            start = begin
    return edited


def without_hollow_sentences(caption: Edited) -> Edited:
    """Remove sentences of which removals have left nothing but "this is a track that"."""
    edited = caption
    for match in reversed(list(_SENTENCE.finditer(caption.text))):
        if _EMPTY_SUBJECT.fullmatch(match.group().strip().rstrip(".!?")):
            edited = edited.splice("hollow", *match.span())
    return edited


def _extent(text: str, match: re.Match[str]) -> tuple[int, int]:
    """Return where the tail that starts at `match` begins and ends; (n, n) for a match that is none."""
    first, last = _sentence_around(text, match.start("trigger"))
    body = text[first:last].rstrip()
    stop = first + len(body.rstrip(".!?"))
    end = _end_of_tail(text, match.end(), stop)
    groups = match.groupdict()
    if (groups.get("fits") or groups.get("reminds")) and MUSIC_WORDS.search(_own_phrase(text[match.end() : end])):
        return match.start(), match.start()
    begin = max(match.start("join"), first)
    if _EMPTY_SUBJECT.fullmatch(text[first:begin]):
        return first, last if end == stop else _DANGLING_AFTER.match(text, end).end()  # type: ignore[union-attr]
    dangling = _DANGLING_BEFORE.search(text, first, begin)
    return dangling.start() if dangling else begin, end


def _end_of_tail(text: str, start: int, stop: int) -> int:
    """Return where the first later part about the music itself begins, else the end of the sentence."""
    parts = list(_STOPPED.finditer(text, start, stop))
    before = None
    for here, following in zip(parts, [*parts[1:], None]):
        part = text[here.start() : following.start() if following else stop]
        if MUSIC_WORDS.search(part):
            return before if before is not None and _AND.match(part) else here.start()
        before = here.start() if _WITH.match(part) else None
    return stop


def _own_phrase(text: str) -> str:
    """Return the words behind a trigger; a music word in them says that it was no tail ("reminds of the 80s")."""
    return " ".join(text.split()[:5])


def _sentence_around(text: str, position: int) -> tuple[int, int]:
    for match in _SENTENCE.finditer(text):
        if match.start() <= position < match.end():
            return match.span()
    return 0, len(text)

"""Word lists the rules share: instruments with their other names, and words that describe the music itself."""

import re
from functools import cache

INSTRUMENTS: dict[str, tuple[str, ...]] = {
    "accordion": ("accordions?", "bandoneon", "concertina"),
    "acoustic guitar": (r"acoustic\s*guitars?", "classical guitars?", "nylon guitars?", "fingerpicked guitars?"),
    "banjo": ("banjos?",),
    "bass guitar": ("bass guitars?", "electric bass", "fretless bass", "slap bass"),
    "bassoon": ("bassoons?",),
    "bells": ("bells?", "handbells?", "chimes?", "glockenspiels?", "celesta", "music box"),
    "brass": ("brass", "horns?", "french horns?"),
    "cello": ("cellos?",),
    "clarinet": ("clarinets?",),
    "double bass": ("double bass(?:es)?", "upright bass", "contrabass"),
    "drum machine": ("drum machines?", "808s?", "909s?"),
    "drums": ("drums?", "drum ?kit", "snares?", "hi-?hats?", "cymbals?"),
    "electric guitar": ("electric guitars?", "distorted guitars?", "lead guitars?"),
    "electric piano": ("electric pianos?", "rhodes", "wurlitzer"),
    "flute": ("flutes?", "pan ?flutes?", "recorders?", "ocarina"),
    "guitar": ("guitars?",),
    "harmonica": ("harmonicas?",),
    "harp": ("harps?",),
    "harpsichord": ("harpsichords?",),
    "mandolin": ("mandolins?", "bouzouki"),
    "marimba": ("marimbas?", "xylophones?", "vibraphones?", "kalimba"),
    "oboe": ("oboes?",),
    "orchestra": ("orchestras?", "orchestral"),
    "organ": ("organs?", "hammond"),
    "percussion": (
        "percussions?",
        "percussive",
        "congas?",
        "bongos?",
        "shakers?",
        "tambourines?",
        "djembes?",
        "claps?",
    ),
    "piano": ("pianos?",),
    "saxophone": ("saxophones?", "sax(?:es)?"),
    "sitar": ("sitars?",),
    "strings": ("strings?", "string section", "string quartet"),
    "synthesizer": ("synth(?:esi[sz]er)?s?", "synths?"),
    "tabla": ("tablas?",),
    "trombone": ("trombones?",),
    "trumpet": ("trumpets?",),
    "tuba": ("tubas?",),
    "ukulele": ("uk[ue]leles?",),
    "viola": ("violas?",),
    "violin": ("violins?", "fiddles?"),
}

_SPECIFIC = {"acoustic guitar", "electric guitar", "bass guitar"}

MUSIC_WORDS = re.compile(
    r"\b(?:accompan\w+|acoustic|ambient|arpeggi\w+|bass|beats?|blues|bpm|chords?|classical|country|disco|distort\w+|"
    r"drum\w*|dubstep|electro\w*|edm|energetic|folk|funk\w*|genre|grooves?|guitar\w*|harmon\w+|hip[ -]?hop|house|"
    r"instrument\w*|intro|jazz\w*|keys|keyboards?|kick|loops?|lo-?fi|melod\w+|metal|minor|major|orchestr\w*|pads?|"
    r"percussi\w+|piano\w*|pop|punk|reggae|reverb\w*|rhythm\w*|riffs?|rock|samples|slow|fast|solos?|soul|"
    r"sounds of|strings?|syncopat\w+|synth\w*|techno|tempo|texture\w*|trance|trap|upbeat|violins?|vocals?|voices?|"
    r"sax\w*|trumpets?|flutes?|organ|harp|cello|brass|horns?|banjo|accordion|ukulele|bells?|timbres?|moods? (?:is|of)|"
    r"the mood|scales?|build\w*|(?:19|20)?\d0'?s)\b",
    re.IGNORECASE,
)
"""A phrase with one of these says something about the music itself."""


@cache
def _instrument_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(INSTRUMENTS[name])})\b", re.IGNORECASE)


def instruments_in(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the instruments that captions and tags name, in alphabetical order.

    >>> instruments_in(("A ballad with soft piano", "acoustic guitar, and a fiddle"))
    ('acoustic guitar', 'piano', 'violin')
    """
    text = " ; ".join(texts).replace("---", " ")
    found = {name for name in INSTRUMENTS if _instrument_pattern(name).search(text)}
    if found & _SPECIFIC and "guitar" in found:
        found -= {"guitar"}
    return tuple(sorted(found))

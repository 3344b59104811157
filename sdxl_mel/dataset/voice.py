"""How likely a voice is heard in a track whose captions do not say: by musicnn's tags, where it is installed.

The MagnaTagATune tags come in pairs that people gave to the same music: "vocal", "singing", "female voice", ... and
"no vocals", "no voice". What is compared is the strongest of each kind, window by window. Measured on rendered music
only: 16 duets and solos without voices 0.01 to 0.28; General MIDI's choir 0.94 to 0.99, its synthetic voice 0.39 to
0.80, its "oohs" 0.06 to 0.57. How much real singing it misses is not known.
"""

from functools import lru_cache

from sdxl_mel.arrays import Float
from sdxl_mel.metrics.embedders.musicnn import SAMPLE_RATE, MusicnnEmbedder
from sdxl_mel.sound.encoding import resample

VOICE_TAGS = frozenset(
    ["vocal", "vocals", "singing", "voice", "female", "male", "woman", "man", "choir", "choral", "opera"]
    + ["female vocal", "male vocal", "female voice", "male voice"]
)
NO_VOICE_TAGS = frozenset({"no vocals", "no vocal", "no voice"})


@lru_cache(maxsize=1)
def tagger() -> MusicnnEmbedder:
    """Return the tagger, opened once a process. Raises MissingError that says how to get it."""
    return MusicnnEmbedder("mtt")


def voice_probability(samples: Float, sample_rate: int) -> float:
    """Return how much likelier a voice is than none in (channels, n) samples, 0..1, the mean over windows of 3 s."""
    mono = resample(samples.mean(axis=0, keepdims=True), sample_rate, SAMPLE_RATE)[0]
    labels = tagger().labels
    tags = tagger().tags(mono)
    heard = tags[:, [index for index, label in enumerate(labels) if label in VOICE_TAGS]].max(axis=1)
    absent = tags[:, [index for index, label in enumerate(labels) if label in NO_VOICE_TAGS]].max(axis=1)
    return round(float((heard / (heard + absent)).mean()), 3)

"""Tokens of an export are those of the tokenizers that Python draws with, whatever the text."""

from typing import Any

import numpy as np
import pytest

from sdxl_mel.assets import MINI
from sdxl_mel.corpus.tracks import plan_tracks
from sdxl_mel.export.models import tokenizer_json
from sdxl_mel.export.runner import read_tokenizer, token_ids
from sdxl_mel.export.vectors import TEXTS
from sdxl_mel.files import tokenizer as clip
from sdxl_mel.models.text_encoding import read_tokens
from sdxl_mel.seeding import numpy_generator

LETTERS = [
    *"abcXYZ019 .,!?'\"-_/\\()[]<>|&#@\t\n\r\x00\x1c\u00a0\u200b\u200d\u3000\ufeff\ufffd",
    *"éÉßẞİıſǅΣσςÅ\u0301\u0308ﬁ½²Ⅻ﷽ああ한글中文😀👩\U0001f3fb\U0010ffff",
    "<|endoftext|>",
    "<|startoftext|>",
    "</w>",
    "'s",
    "'LL",
    "violin",
]


def tokenizer(name: str) -> Any:
    if name == "public":
        return clip.public_tokenizer("!")
    return clip.read_tokenizer(MINI, name)


def hostile(count: int) -> list[str]:
    random = numpy_generator(0, "hostile")
    return ["".join(random.choice(LETTERS, random.integers(1, 60))) for _ in range(count)]


def captions() -> list[str]:
    tracks = [*plan_tracks("train", 200), *plan_tracks("train", 50, group="left-out")]
    return sorted({caption for track in tracks for caption in track.captions})


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2", "public"])
def test_tokens_are_those_of_the_base(name: str) -> None:
    texts = [*TEXTS, *hostile(1000), *captions()]
    own = tokenizer(name)
    exported = read_tokenizer(tokenizer_json(own))
    wanted = read_tokens(own, texts).numpy()
    found = np.array([token_ids(exported, text, own.pad_token, 77) for text in texts])
    assert np.array_equal(found, wanted)

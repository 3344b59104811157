"""CLIP's public tokenizer: against the algorithm of its paper written out here, and against ids that are known."""

import gzip
import json
import random
import re
import unicodedata
from pathlib import Path

import pytest

from sdxl_mel.assets import CLIP_MERGES, MINI
from sdxl_mel.captions.tokens import token_counter
from sdxl_mel.errors import FormatError
from sdxl_mel.files.carried import carried_files
from sdxl_mel.files.tensors import write_tensors
from sdxl_mel.files.tokenizer import (
    is_public,
    public_tokenizer,
    read_tokenizer,
    tokenizer_files,
    tokenizer_of_files,
    tokenizer_of_single_file,
)

CAPTIONS = Path(__file__).parents[1] / "fixtures" / "song_describer_60.json"
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


@pytest.fixture(scope="module")
def tokenizer():
    return public_tokenizer()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    captions = re.findall(r'"((?:[^"\\]|\\.)*)"', CAPTIONS.read_text(encoding="utf-8"))
    drawn = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,;:!?'-+# äöüß éèñ 音楽 музыка 🎻 \t"
    made = ["".join(drawn.choices(letters, k=drawn.randrange(60))) for _ in range(300)]
    return [*captions, *made, "", "don't we'll I'M", "naïve café", "e\u0301", "<|endoftext|>"]


class Reference:
    """BPE as Sennrich et al. (arXiv 1508.07909, algorithm 1) apply it, with OpenAI's merges in their order."""

    def __init__(self) -> None:
        lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode().split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
        alphabet = list(self.letters.values())
        tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in pairs)]
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {pair: number for number, pair in enumerate(pairs)}

    def word(self, word: str) -> list[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, 10**9))
            if best not in self.ranks:
                break
            joined, place = [], 0
            while place < len(parts):
                both = tuple(parts[place : place + 2]) == best
                joined.append("".join(best) if both else parts[place])
                place += 2 if both else 1
            parts = joined
        return [self.ids[part] for part in parts]

    def __call__(self, text: str) -> list[int]:
        return [
            number for word in WORD.findall(unicodedata.normalize("NFC", text).lower()) for number in self.word(word)
        ]


def test_it_is_clips_on_many_texts(tokenizer, texts) -> None:
    reference = Reference()
    for text in texts:
        if "<|" not in text:
            assert tokenizer(text, add_special_tokens=False).input_ids == reference(text), text


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of an astronaut riding a horse", [320, 1125, 539, 550, 18376, 6765, 320, 4558]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("hello world", [3306, 1002]),
    ],
)
def test_ids_that_papers_and_tutorials_print(tokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer(text).input_ids == [49406, *ids, 49407]


def test_its_size_its_ends_and_its_padding(tokenizer) -> None:
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 49407)
    assert public_tokenizer("!").pad_token_id == 0
    assert is_public(tokenizer, "<|endoftext|>") and not is_public(tokenizer, "!")
    assert not is_public(read_tokenizer(MINI / "tokenizer"), "<|endoftext|>")


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2", "public"])
def test_files_made_of_a_tokenizer_make_it_again(name: str, tokenizer, texts, tmp_path: Path) -> None:
    one = tokenizer if name == "public" else read_tokenizer(MINI / name)
    again = tokenizer_of_files(tokenizer_files(one))
    options = {"padding": "max_length", "truncation": True, "max_length": 77}
    assert again(texts, **options).input_ids == one(texts, **options).input_ids
    one.save_pretrained(tmp_path)
    assert {file.name: json.loads(file.read_bytes()) for file in tmp_path.iterdir()} == tokenizer_files(one)


def test_a_single_file_has_the_tokenizer_that_it_carries_else_clips(tmp_path: Path) -> None:
    write_tensors(tmp_path / "plain.safetensors", {}, {"format": "pt"}, lambda name, out: None)
    assert tokenizer_of_single_file(tmp_path / "plain.safetensors")("hello world").input_ids[1:-1] == [3306, 1002]
    assert token_counter(str(tmp_path / "plain.safetensors")).count("hello world") == 2
    metadata = {"sdxl_mel.configs": '{"unet/config.json": 5}'}
    write_tensors(tmp_path / "damaged.safetensors", {}, metadata, lambda name, out: None)
    with pytest.raises(FormatError, match="are not JSON files by name"):
        carried_files(tmp_path / "damaged.safetensors")

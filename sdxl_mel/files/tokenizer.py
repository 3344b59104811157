"""CLIP's tokenizers: those of a folder, those that a file carries, and the public one, which ships with the package."""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from sdxl_mel.assets import CLIP_MERGES
from sdxl_mel.errors import FormatError
from sdxl_mel.files.carried import Files, carried_files, files_in
from sdxl_mel.files.header import parse_json

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 49408
"""The tokens of every published base: 256 bytes, inside a word and at its end, the merges, start and end."""
MAX_LENGTH = 77


def read_tokenizer(place: Path, folder: str = "") -> Any:
    """Return the tokenizer in a folder, or in a `folder` of a place, which may be on the hub.

    Raises FormatError for what is none.
    """
    try:
        return _kind().from_pretrained(str(place), subfolder=folder, local_files_only=place.is_dir())
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FormatError(f"{place / folder}: not a CLIP tokenizer: {reason}") from error


def tokenizer_of_single_file(path: Path) -> Any:
    """Return the first tokenizer that a checkpoint carries, CLIP's own if it carries none."""
    carried = files_in(carried_files(path), "tokenizer")
    return tokenizer_of_files(carried) if carried else public_tokenizer()


def public_tokenizer(padding: str = END) -> Any:
    """Return CLIP's tokenizer, made of OpenAI's merges as openai/CLIP's simple_tokenizer.py makes it.

    Its vocabulary is the bytes in the order of their letters, the same at the end of a word, and what the merges join.
    """
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").split("\n")
    letters = sorted(ByteLevel.alphabet())
    merges = [tuple(line.split()) for line in lines[1 : 1 + VOCABULARY - 2 * len(letters) - 2]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return _kind()(vocab=vocabulary, merges=merges, pad_token=padding, model_max_length=MAX_LENGTH)


def is_public(tokenizer: Any, padding: str) -> bool:
    """Return whether a tokenizer is CLIP's own with this padding."""
    same_size = len(tokenizer) == VOCABULARY and tokenizer.pad_token == padding
    return same_size and tokenizer.get_vocab() == public_tokenizer(padding).get_vocab()


def tokenizer_files(tokenizer: Any) -> Files:
    """Return the files that transformers writes of a tokenizer; `tokenizer_of_files` is the inverse."""
    with TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        return {path.name: parse_json(path.read_bytes()) for path in sorted(Path(name).glob("*.json"))}


def tokenizer_of_files(files: Files) -> Any:
    """Return the tokenizer of the files that `tokenizer_files` made. Raises FormatError for what is none."""
    with TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_text(json.dumps(content), encoding="utf-8")
        return read_tokenizer(Path(name))


def _kind() -> Any:
    # Imported here, so that whoever only moves tensors does not wait for it.
    from transformers import CLIPTokenizer

    return CLIPTokenizer

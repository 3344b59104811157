"""Smaller text encoders: fewer layers, and the tokens of some captions alone, with the weights of the whole ones.

The width stays, so that the UNet, and every LoRA for it, takes them as they are.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import CLIPTokenizer

from sdxl_mel.errors import InputError
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.layouts import TEXT_MODEL
from sdxl_mel.models.pruning import most_influential

END_OF_WORD = "</w>"


def encoder_layers(encoder: nn.Module) -> nn.ModuleList:
    """Return the layers of a CLIP text encoder."""
    inner: Any = getattr(encoder, TEXT_MODEL, encoder)
    layers: nn.ModuleList = inner.encoder.layers
    return layers


def kept_layers(influence: Sequence[float], count: int) -> list[int]:
    """Return which layers stay, in order: the last one, which pooled text is made of, and those that change most.

    Raises InputError unless 2 to all of them stay.
    """
    if not 2 <= count <= len(influence):
        raise InputError(
            f"layers: found {count}; this text encoder has {len(influence)}, so 2 to {len(influence)} can be"
        )
    names = [str(index) for index in range(len(influence) - 1)]
    return [*map(int, most_influential(names, dict(zip(names, influence)), count - 1)), len(influence) - 1]


@torch.no_grad()
def smaller_encoder(encoder: Any, layers: Sequence[int], tokens: Sequence[int], tokenizer: Any) -> Any:
    """Return a copy of a CLIP text encoder with these of its layers and tokens, for the tokenizer that has them."""
    config = deepcopy(encoder.config)
    config.num_hidden_layers, config.vocab_size = len(layers), len(tokens)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    # transformers builds the inner model in the dtype in which the whole one was stored, and the projection in float32.
    config.dtype = encoder.dtype
    small = type(encoder)(config)
    whole = encoder.state_dict()
    for name, own in small.state_dict().items():
        head, found, tail = name.rpartition("layers.")
        source = f"{head}layers.{layers[int(tail.partition('.')[0])]}.{tail.partition('.')[2]}" if found else name
        there = whole[source]
        own.copy_(there[list(tokens)] if name.endswith("token_embedding.weight") else there)
    return small


def smaller_tokenizer(tokenizer: Any, texts: Iterable[str]) -> tuple[Any, list[int]]:
    """Return a tokenizer with the tokens that these texts need, and which tokens of the larger one those are.

    Their words are tokenized as before: every merge on the way to them stays, in order. All bytes stay, so any other
    word is spelt out in smaller pieces.
    """
    model = tokenizer_files(tokenizer)["tokenizer.json"]["model"]
    merges = [(str(left), str(right)) for left, right in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    used: set[tuple[str, str]] = set()
    backend = tokenizer.backend_tokenizer
    words = {
        word
        for text in texts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    }
    for word in words:
        used |= merges_of(word, ranks)
    vocabulary: dict[str, int] = model["vocab"]
    unneeded = {"".join(pair) for pair in merges} - {"".join(pair) for pair in used}
    # Merged tokens go unless a word needs them; bytes, their ends of words, and special tokens are never merged.
    kept = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if token not in unneeded]
    small = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(kept)},
        merges=[pair for pair in merges if pair in used],
        pad_token=tokenizer.pad_token,
        model_max_length=tokenizer.model_max_length,
    )
    return small, [vocabulary[token] for token in kept]


def merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Return the merges by which byte-pair encoding makes the tokens of a word: the lowest rank first, everywhere."""
    parts, used = [*word[:-1], word[-1] + END_OF_WORD], set()
    while known := [(ranks[pair], pair) for pair in zip(parts, parts[1:]) if pair in ranks]:
        _, best = min(known)
        used.add(best)
        joined: list[str] = []
        index = 0
        while index < len(parts):
            both = tuple(parts[index : index + 2]) == best
            joined.append("".join(best) if both else parts[index])
            index += 2 if both else 1
        parts = joined
    return used

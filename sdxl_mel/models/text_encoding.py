"""Text to embeddings: what the text encoders of a base make of prompts, as its family reads them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.errors import InputError


def encode_prompts(base: Any, texts: Sequence[str], clip_skip: int = 0) -> TextEmbeddings:
    """Encode texts as the base's family does; gradients flow if the encoders want them.

    `base` has its `family`, and what that family's encoding reads (text_encoder, tokenizer, ...). `clip_skip` counts
    layers skipped beyond those that the family skips itself. Text beyond the encoders' 77 tokens is cut; see
    `tokens_lost`. Raises InputError for a clip_skip that no layer is left for.
    """
    return base.family.encode_prompts(base, texts, clip_skip)


def tokens_lost(tokenizer: Any, texts: Sequence[str]) -> Iterator[int]:
    """Yield how many tokens of each text lie beyond what its encoder reads."""
    for text in texts:
        ids = tokenizer(text, truncation=False, verbose=False).input_ids
        yield max(0, len(ids) - tokenizer.model_max_length)


class EncoderOutput(NamedTuple):
    """The embedded tokens followed by every layer's output, (batch, tokens, width) each, none of them normed.

    `end` (batch, width) is the last layer after the final norm, at the first end-of-text token.
    """

    layers: tuple[Tensor, ...]
    end: Tensor


def run_encoder(encoder: Any, tokenizer: Any, texts: Sequence[str], clip_skip: int) -> EncoderOutput:
    """Run a CLIP text encoder on texts. Raises InputError for a clip_skip that no layer is left for."""
    layers = encoder.config.num_hidden_layers
    if not 0 <= clip_skip <= layers - 1:
        raise InputError(f"clip_skip {clip_skip}: this text encoder has {layers} layers, so 0 to {layers - 1} can be")
    return encode_tokens(encoder, read_tokens(tokenizer, texts).to(encoder.device), tokenizer.eos_token_id)


def read_tokens(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return the token ids of texts, cut and filled up to what a text encoder reads, (batch, 77)."""
    options: Any = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    return tokenizer(list(texts), return_tensors="pt", **options).input_ids


def encode_tokens(encoder: Any, ids: Tensor, end_token: int) -> EncoderOutput:
    """Run a CLIP text encoder on token ids (batch, tokens)."""
    output = encoder(ids, output_hidden_states=True)
    # The first end-of-text token: the first tokenizer pads with it too, and an added token may have a higher id.
    end = (ids == end_token).int().argmax(dim=-1)
    # torch.export takes `shape[0]` as any number of texts, and `len` as the one that it sees.
    texts = torch.arange(ids.shape[0], device=ids.device)
    return EncoderOutput(output.hidden_states, output.last_hidden_state[texts, end])

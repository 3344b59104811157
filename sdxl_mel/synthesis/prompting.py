"""Prompts as other SDXL programs read them: longer than 77 tokens in chunks, and words with weights.

A chunk is as many whole phrases (to a comma) as 75 tokens hold. Each is encoded alone, the tokens of all follow each
other, and the pooled text is that of the first: the rule of A1111 and ComfyUI. `(banjo:1.3)` takes the tokens of its
words 1.3 times as far from those of an empty prompt, as ComfyUI does. Training captions are never read like this: they
are cut to one chunk, and their brackets are words.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sdxl_mel.captions.tokens import MAX_TOKENS
from sdxl_mel.captions.weights import Span, parse_weights
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.models.text_encoding import encode_prompts

PHRASE = re.compile(r"[^,]*,?\s*")
Count = Callable[[str], int]


def chunked(spans: Sequence[Span], count: Count) -> list[list[Span]]:
    """Return spans in chunks of at most 75 tokens: whole phrases, and words of a phrase that is longer than that."""
    chunks: list[list[Span]] = [[]]
    for span in spans:
        for piece in _pieces(span.text, count):
            before = "".join(each.text for each in chunks[-1])
            if before.strip() and count(before + piece) > MAX_TOKENS:
                chunks.append([])
            chunks[-1].append(Span(piece, span.weight))
    return chunks


def _pieces(text: str, count: Count) -> Iterator[str]:
    for phrase in PHRASE.findall(text):
        yield from [phrase] if count(phrase) <= MAX_TOKENS else re.findall(r"\S+\s*", phrase)


def encode_text(base: Any, prompt: str, clip_skip: int, *, weighted: bool = True) -> TextEmbeddings:
    """Return the embeddings of one prompt: `prompt_embeds` (1, 77 a chunk, width), and the pooled text of the first.

    Not `weighted` it is read as a training caption is, in one chunk and with its brackets as words.
    """
    if not weighted:
        return encode_prompts(base, [prompt], clip_skip)
    tokenizer = base.reading_tokenizer()

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    chunks = chunked(parse_weights(prompt), count) or [[Span("", 1.0)]]
    encoded = [_encode_chunk(base, chunk, clip_skip, count) for chunk in chunks]
    return TextEmbeddings(torch.cat([each.prompt_embeds for each in encoded], dim=1), encoded[0].pooled_prompt_embeds)


def _encode_chunk(base: Any, chunk: Sequence[Span], clip_skip: int, count: Count) -> TextEmbeddings:
    text = encode_prompts(base, ["".join(span.text for span in chunk)], clip_skip)
    if all(span.weight == 1.0 for span in chunk):
        return text
    empty, before = encode_prompts(base, [""], clip_skip).prompt_embeds, ""
    weights = torch.ones(text.prompt_embeds.shape[1])
    for span in chunk:
        # One token, the start of the text, stands before them.
        first, before = 1 + count(before), before + span.text
        weights[first : 1 + count(before)] = span.weight
    shares = weights.to(text.prompt_embeds)[None, :, None]
    return text._replace(prompt_embeds=empty + shares * (text.prompt_embeds - empty))


def equally_long(texts: Sequence[TextEmbeddings], empty: TextEmbeddings) -> list[TextEmbeddings]:
    """Return texts with as many chunks as the longest; what is missing are empty prompts."""
    chunk = empty.prompt_embeds.shape[1]
    most = max(text.prompt_embeds.shape[1] for text in texts)
    padding = [[empty.prompt_embeds] * ((most - text.prompt_embeds.shape[1]) // chunk) for text in texts]
    return [
        text._replace(prompt_embeds=torch.cat([text.prompt_embeds, *more], dim=1)) for text, more in zip(texts, padding)
    ]

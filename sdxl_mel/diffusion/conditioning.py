"""What a UNet is told besides the noisy latents: the embedded text, and SDXL's six sizes where its family has them.

Unconditional is the encoded empty text, in training and in generation, as ComfyUI and A1111 do it (diffusers' pipeline
puts zeros there unless it is given a negative prompt).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

TIME_IDS = 6


class TextEmbeddings(NamedTuple):
    """`prompt_embeds` (batch, tokens, width) and `pooled_prompt_embeds` (batch, projection).

    The projection is 0 wide for a UNet that takes no pooled text, as SD 1.5's.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor


def time_ids(height: int, width: int) -> Tensor:
    """Return (6,) float32: original size, crop (0, 0) and target size of an uncropped picture, (height, width) each.

    Give them to the UNet in float32: bfloat16 would round sizes above 256 that are no multiple of 8.
    """
    return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)


def stacked(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """Return several texts as one batch."""
    return TextEmbeddings(*(torch.cat(parts) for parts in zip(*texts)))


def unet_conditions(text: TextEmbeddings, time_ids: Tensor | None) -> dict[str, Any]:
    """Return the UNet's keyword arguments for a batch of texts; `time_ids`, (6,) or (batch or 1, 6), count for all.

    A UNet that takes no sizes (None) is given the prompt embeddings alone.
    """
    conditions: dict[str, Any] = {"encoder_hidden_states": text.prompt_embeds}
    if time_ids is not None:
        # torch.export takes `shape[0]` as any number of texts, and `len` as the one that it sees.
        ids = time_ids.to(text.prompt_embeds.device).expand(text.prompt_embeds.shape[0], -1)
        conditions["added_cond_kwargs"] = {"text_embeds": text.pooled_prompt_embeds, "time_ids": ids}
    return conditions

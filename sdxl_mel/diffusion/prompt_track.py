"""What the text says at each moment of a long piece: sections of a schedule, or a slow change between two texts."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings


@dataclass(frozen=True)
class PromptTrack:
    """The embeddings of some texts, and how much each column of the canvas belongs to each, (columns, texts)."""

    texts: TextEmbeddings
    weights: Tensor

    def over(self, columns: Tensor) -> TextEmbeddings:
        """Return the mean text of some columns: a view that lies in two sections hears both in proportion."""
        share = self.weights[columns].mean(dim=0).to(self.texts.hidden)
        hidden = torch.einsum("t,tkd->kd", share, self.texts.hidden)
        pooled = torch.einsum("t,tp->p", share, self.texts.pooled)
        return TextEmbeddings(hidden[None], pooled[None])


def section_weights(starts: list[int], columns: int) -> Tensor:
    """Return the weights of texts that last from their start to the next one's; the first also begins the piece."""
    edges = [0, *starts[1:], columns]
    weights = torch.zeros(columns, len(starts))
    for index, (first, after) in enumerate(pairwise(edges)):
        weights[first:after, index] = 1.0
    return weights


def travel_weights(columns: int) -> Tensor:
    """Return the weights of two texts that change evenly from the first to the second."""
    second = torch.linspace(0.0, 1.0, columns)
    return torch.stack([1 - second, second], dim=1)

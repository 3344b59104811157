"""A discriminator: a small network that tells pictures of music from what a decoder makes, place by place.

It and the decoder learn from each other by the hinge loss (arXiv 1802.05957, equations 16 and 17). Nothing of it is
kept when a training has ended.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (32, 64, 128, 128)
SLOPE = 0.2
GAIN = 10.0
"""Of the answers: a layer of norm 1 and its rectifier make signals smaller, and the margin of the hinge is 1."""


class NormalisedConv2d(nn.Conv2d):
    """A convolution by its weight over that weight's largest singular value, as a matrix with a row a channel.

    That is spectral normalisation (arXiv 1802.05957, equation 8) by the value itself in place of an estimate that every
    call improves: a step depends on weights alone, however its batch is cut.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolution of features (batch, channels, height, width)."""
        matrix = self.weight.flatten(1)
        largest = torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt()
        return self._conv_forward(features, self.weight / largest, self.bias)


class Discriminator(nn.Module):
    """Says of each place of a picture how real it looks, by the 78 pixels around it and the row.

    `channels` are the picture's, `widths` those of the layers: at half the picture's size, a quarter and so on.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.channels = channels
        self.halving = nn.ModuleList(
            NormalisedConv2d(outer, inner, 4, stride=2, padding=1) for outer, inner in pairwise((channels + 1, *widths))
        )
        self.conv_out = NormalisedConv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return answers (batch, 1, height / 16, width / 16) on pictures (batch, channels, height, width) in -1..1."""
        batch, _, height, width = pictures.shape
        rows = torch.linspace(-1, 1, height, device=pictures.device).view(-1, 1).expand(batch, 1, height, width)
        features = torch.cat([pictures, rows], dim=1)
        for layer in self.halving:
            features = F.leaky_relu(layer(features), SLOPE)
        answers: Tensor = self.conv_out(features)
        return GAIN * answers.float()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return what the discriminator makes small, (batch,): answers on real pictures under 1, on made ones above -1."""
    return (F.relu(1 - real) + F.relu(1 + made)).mean(dim=(1, 2, 3))


def decoder_loss(made: Tensor) -> Tensor:
    """Return what the decoder makes small, (batch,): minus the answers on what it made."""
    return -made.mean(dim=(1, 2, 3))

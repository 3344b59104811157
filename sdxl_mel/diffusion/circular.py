"""Convolutions that see time as a circle, so that the end of a picture is the neighbour of its start.

Attention has no notion of place and normalisation none of edges: with circular convolutions a UNet or a VAE decoder
commutes with rolling the picture in time, which is what makes a loop seamless (vladmandic/sdnext#2911).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def circular_in_time(*models: nn.Module) -> Iterator[None]:
    """Let every convolution of the models pad its width with the other end while the block runs; height keeps zeros."""
    convolutions = [
        module
        for model in models
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and _padding(module)[1] > 0
    ]
    try:
        for convolution in convolutions:
            # An attribute of the instance shadows the method, and is deleted to give it back.
            convolution._conv_forward = _circular_forward(convolution)  # type: ignore[method-assign]
        yield
    finally:
        for convolution in convolutions:
            del convolution._conv_forward


def _circular_forward(convolution: nn.Conv2d) -> Any:
    rows, columns = _padding(convolution)

    def forward(latents: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wrapped = F.pad(latents, (columns, columns, 0, 0), mode="circular")
        return F.conv2d(wrapped, weight, bias, convolution.stride, (rows, 0), convolution.dilation, convolution.groups)

    return forward


def _padding(convolution: nn.Conv2d) -> tuple[int, int]:
    rows, columns = (0, 0) if isinstance(convolution.padding, str) else convolution.padding
    return rows, columns

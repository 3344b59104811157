"""Nearest upsampling by 2 and a 3 x 3 convolution as one transposed convolution: 16 of 36 products, the same numbers.

A pixel of the large picture sees 2 x 2 pixels of the small one. The four parities of the large picture are therefore
four 2 x 2 convolutions of the small one, which one transposed convolution of 4 x 4 and stride 2 holds.
"""

from typing import TypeGuard

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

SUMS = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Row t holds which of a kernel's three places fall on the same small pixel at place t of the transposed kernel."""


class UpsampledConv(nn.Module):
    """A 3 x 3 convolution of a picture that is upsampled by 2, given the small picture.

    It keeps the weights as they were trained: nine and not sixteen, and rounded as all are where they are stored small.
    """

    sums: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.register_buffer("sums", torch.kron(SUMS, SUMS).T.contiguous(), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the large picture."""
        kernel = (self.weight.flatten(2) @ self.sums).unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(picture, kernel, self.bias, stride=2, padding=1)


def transpose_upsampling(model: nn.Module) -> None:
    """Replace what upsamples and convolves in a model of diffusers by transposed convolutions, in place.

    What is not a plain 3 x 3 convolution after nearest upsampling stays.
    """
    for layer in model.modules():
        if isinstance(layer, Upsample2D) and layer.interpolate and layer.norm is None and _plain(layer.conv):
            layer.conv, layer.use_conv_transpose = UpsampledConv(layer.conv), True


def _plain(conv: object) -> TypeGuard[nn.Conv2d]:
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and conv.groups == 1
    )

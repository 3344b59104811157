"""Nearest upsampling by 2 and a 3 x 3 convolution as one transposed convolution: 16 of 36 products, the same numbers.

A pixel of the large picture sees 2 x 2 pixels of the small one. The four parities of the large picture are therefore
four 2 x 2 convolutions of the small one, which one transposed convolution of 4 x 4 and stride 2 holds.
"""

from typing import TypeGuard

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

SUMS = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Row t holds which of a kernel's three places fall on the same small pixel at place t of the transposed kernel."""


def transpose_upsampling(model: nn.Module) -> None:
    """Replace what upsamples and convolves in a model of diffusers by transposed convolutions, in place.

    What is not a plain 3 x 3 convolution after nearest upsampling, one with factors beside it for example, stays.
    """
    for layer in model.modules():
        if isinstance(layer, Upsample2D) and layer.interpolate and layer.norm is None and _plain(layer.conv):
            layer.conv, layer.use_conv_transpose = transposed(layer.conv), True


def transposed(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return what a 3 x 3 convolution makes of a picture that is upsampled by 2, as a layer on the small picture."""
    with torch.device("meta"):
        layer = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1)
    layer.weight = nn.Parameter(transposed_kernel(conv.weight.detach()), False)
    layer.bias = conv.bias
    return layer


def transposed_kernel(kernel: Tensor) -> Tensor:
    """Return the kernel (in, out, 4, 4) of the transposed convolution of one (out, in, 3, 3)."""
    sums = SUMS.to(kernel)
    return torch.einsum("oiyx,ay,bx->ioab", kernel, sums, sums).contiguous()


def _plain(conv: object) -> TypeGuard[nn.Conv2d]:
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and conv.groups == 1
    )

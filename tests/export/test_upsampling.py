"""Upsampling and convolution in one: the same numbers from less than half of the products."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from sdxl_mel.export.factors import Factored
from sdxl_mel.export.upsampling import UpsampledConv, transpose_upsampling


def plain(inputs: int, outputs: int) -> Upsample2D:
    torch_state = torch.random.get_rng_state()
    torch.random.manual_seed(inputs)
    layer = Upsample2D(inputs, use_conv=True, out_channels=outputs).eval()
    torch.random.set_rng_state(torch_state)
    return layer


@pytest.mark.parametrize(("inputs", "outputs", "height", "width"), [(1, 1, 1, 1), (3, 5, 4, 7), (16, 8, 9, 2)])
def test_the_picture_is_the_same(inputs: int, outputs: int, height: int, width: int) -> None:
    layer = plain(inputs, outputs)
    small = torch.randn(2, inputs, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = layer(small)
        transpose_upsampling(nn.Sequential(layer))
        found = layer(small)
    assert isinstance(layer.conv, UpsampledConv)
    assert found.shape == wanted.shape == (2, outputs, 2 * height, 2 * width)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp_min(1)


def test_what_is_no_plain_convolution_of_a_doubled_picture_stays() -> None:
    factored, wide, bare, normed = (
        plain(4, 4),
        plain(4, 4),
        Upsample2D(4),
        Upsample2D(4, use_conv=True, norm_type="ln_norm"),
    )
    factored.conv = Factored(factored.conv, torch.zeros(1, 4, 3, 3), torch.zeros(4, 1, 1, 1))
    wide.conv = nn.Conv2d(4, 4, 5, padding=2)
    before = [layer.conv for layer in (factored, wide, bare, normed)]
    transpose_upsampling(nn.Sequential(factored, wide, bare, normed))
    assert [layer.conv for layer in (factored, wide, bare, normed)] == before
    assert not any(layer.use_conv_transpose for layer in (factored, wide, bare, normed))

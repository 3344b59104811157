"""Which kernel computes attention while training: exact where the fused one is slow."""

import pytest
import torch
from torch.backends.cuda import flash_sdp_enabled
from torch.nn.functional import scaled_dot_product_attention

from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.training.model import Model, quick_attention


@pytest.mark.parametrize(("dtype", "fused"), [(torch.float32, True), (torch.bfloat16, False)])
def test_bfloat16_on_a_cpu_takes_plain_products(dtype, fused):
    model = Model(None, None, None, Architecture(SDXL), dtype=dtype)
    with quick_attention(model):
        assert flash_sdp_enabled() is fused
    assert flash_sdp_enabled()


def test_both_kernels_compute_the_same():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 16, 8, generator=generator, requires_grad=True) for _ in range(3))
    fused = scaled_dot_product_attention(query, key, value)
    with quick_attention(Model(None, None, None, Architecture(SDXL), dtype=torch.bfloat16)):
        plain = scaled_dot_product_attention(query, key, value)
    assert torch.allclose(plain, fused, atol=1e-6)
    gradients = [torch.autograd.grad(result.square().sum(), (query, key, value)) for result in (fused, plain)]
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(*gradients))

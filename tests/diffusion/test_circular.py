"""With circular convolutions the models commute with rolling time, and are themselves again afterwards."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdxl_mel.diffusion.circular import circular_in_time
from tests.tiny_models import tiny_unet, tiny_vae

UNET_HALVINGS = 4
"""The UNet halves the width twice, so it commutes with rolls by multiples of 4."""


@torch.no_grad()
def predicted(unet: Any, latents: Tensor) -> Tensor:
    told = {"text_embeds": torch.zeros(1, 48), "time_ids": torch.zeros(1, 6)}
    return unet(latents, torch.tensor(300), torch.zeros(1, 77, 80), added_cond_kwargs=told).sample


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents).sample


@pytest.mark.parametrize(("make", "run", "factor"), [(tiny_unet, predicted, 1), (tiny_vae, decoded, 8)])
def test_models_commute_with_rolling_time(
    make: Callable[[], nn.Module], run: Callable[[nn.Module, Tensor], Tensor], factor: int
) -> None:
    model = make().eval()
    latents = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    turned = latents.roll(UNET_HALVINGS, -1)
    before = run(model, latents)
    assert (before.roll(UNET_HALVINGS * factor, -1) - run(model, turned)).abs().max() > 1e-3
    with circular_in_time(model):
        circular = run(model, latents)
        torch.testing.assert_close(circular.roll(UNET_HALVINGS * factor, -1), run(model, turned), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(run(model, latents), before, rtol=0, atol=0)


def test_one_convolution_is_the_wrapped_sum() -> None:
    convolution = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    picture = torch.arange(20.0).reshape(1, 1, 4, 5)
    with torch.no_grad(), circular_in_time(convolution):
        circular = convolution(picture)
        wide = torch.cat([picture[..., -1:], picture, picture[..., :1]], dim=-1)
        expected = torch.nn.functional.conv2d(wide, convolution.weight, padding=(1, 0))
    torch.testing.assert_close(circular, expected)


def test_models_are_restored_after_an_error() -> None:
    convolution = nn.Conv2d(1, 1, 3, padding=1)
    picture = torch.randn(1, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    before = convolution(picture)
    with pytest.raises(KeyboardInterrupt), circular_in_time(convolution):
        raise KeyboardInterrupt
    torch.testing.assert_close(convolution(picture), before, rtol=0, atol=0)

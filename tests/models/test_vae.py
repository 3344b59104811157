"""Pictures in the order and range a VAE was trained with, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.errors import InputError
from sdxl_mel.models.vae import decode, encode, images_of, values_of_images
from tests.tiny_models import tiny_vae


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.sampled_from(["bottom", "top"]))
def test_values_are_the_inverse_of_images(seed: int, channels: int, low_at: str) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (2, 16, 8, channels), dtype=np.uint8)
    images = images_of(levels, low_at)
    assert images.shape == (2, 3, 16, 8)
    assert images.min() >= -1 and images.max() <= 1
    values = values_of_images(images, channels, low_at)
    assert np.array_equal(np.rint(values * 255).astype(np.uint8), levels)


def test_low_frequencies_are_at_the_bottom() -> None:
    levels = np.zeros((1, 16, 8, 1), dtype=np.uint8)
    levels[:, 0] = 255
    assert images_of(levels, "bottom")[0, :, -1].eq(1).all()
    assert images_of(levels, "top")[0, :, 0].eq(1).all()


def test_posterior_is_that_of_diffusers() -> None:
    vae = tiny_vae().eval()
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    mean, logvar = encode(vae, images)
    with torch.no_grad():
        expected = vae.encode(images).latent_dist
        assert torch.equal(mean, expected.mean) and torch.equal(logvar, expected.logvar)
        assert torch.equal(decode(vae, mean), vae.decode(mean).sample)
    assert mean.shape == (2, 4, 8, 4)


def test_nan_names_the_picture() -> None:
    vae = tiny_vae().eval()
    images = torch.zeros(3, 3, 16, 16)
    images[1] = torch.nan
    with pytest.raises(InputError, match=r"b\.png: the VAE \(float32\) makes NaN .* --vae"):
        encode(vae, images, ["a.png", "b.png", "c.png"])


def test_a_vae_that_overflows_in_float16_is_refused() -> None:
    vae = tiny_vae().eval().half()
    with torch.no_grad():
        vae.encoder.conv_in.weight.fill_(6e4)  # finite; its sums are not
    with pytest.raises(InputError, match=r"the VAE \(float16\) makes NaN"):
        encode(vae, torch.ones(1, 3, 16, 16), ["a.png"])

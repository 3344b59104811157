"""Previews: the linear map that is fitted to a VAE shows what a picture shows, whatever noise is in its latents."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sdxl_mel.files.audio import read_audio
from sdxl_mel.models.base import open_base
from sdxl_mel.models.latent_map import MOST_COLUMNS, LatentMap, fit, synthetic_tile
from sdxl_mel.models.vae import encode_levels
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.studio.preview import data_url
from tests.sounds import FIXTURES

SPEC = PRESETS["mini"]


@pytest.fixture(scope="module")
def vae() -> Iterator[Any]:
    yield open_base("mini", ("vae",)).vae


def test_a_preview_shows_the_picture(vae: Any) -> None:
    signal = prepare_signal(*read_audio(FIXTURES / "piano.flac"), SPEC)
    levels = encode_clip(cut_clip(signal, 0, SPEC.width, SPEC), SPEC)
    latents = encode_levels(vae, levels, SPEC, "piano")[0].numpy()
    pixels = np.asarray(fit(vae, SPEC).picture(latents)).mean(axis=2)
    means = levels[::-1].reshape(SPEC.n_mels // 8, 8, SPEC.width // 8, 8, -1).mean(axis=(1, 3, 4))
    assert pixels.shape == means.shape
    assert np.corrcoef(pixels.ravel(), means.ravel())[0, 1] > 0.9


def test_the_tile_it_is_fitted_on_is_always_the_same() -> None:
    assert np.array_equal(synthetic_tile(SPEC), synthetic_tile(SPEC))
    assert synthetic_tile(PRESETS["hifi"]).shape == (1024, 1024, 3)


def test_noise_of_any_strength_and_long_pieces_are_shown() -> None:
    latent_map = LatentMap(np.full((5, 3), 0.1, np.float32), 1.0)
    noise = numpy_generator(0, "noise").normal(0, 14, (4, 16, 5000)).astype(np.float32)
    picture = latent_map.picture(noise)
    assert picture.height == 16
    assert MOST_COLUMNS / 2 < picture.width <= MOST_COLUMNS
    assert data_url(picture).startswith("data:image/png;base64,")

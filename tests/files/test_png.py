"""PNGs that we write are PNGs to everyone: Pillow reads back pixels and text."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdxl_mel.files.spectrogram import png_bytes


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 70), grey=st.booleans(), seed=st.integers(0, 99))
def test_pillow_reads_the_same_pixels(height: int, width: int, grey: bool, seed: int) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    image = Image.open(BytesIO(png_bytes(pixels, PngInfo())))
    assert image.mode == ("L" if grey else "RGB")
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pillow_reads_the_text() -> None:
    info = PngInfo()
    info.add_itxt("melspec", '{"prompt": "Größe, 音楽"}')
    image = Image.open(BytesIO(png_bytes(np.zeros((8, 8), dtype=np.uint8), info)))
    assert image.text == {"melspec": '{"prompt": "Größe, 音楽"}'}


def test_every_checksum_is_right() -> None:
    content = png_bytes(np.zeros((8, 8, 3), dtype=np.uint8), PngInfo())
    Image.open(BytesIO(content)).verify()
    broken = bytearray(content)
    broken[-6] ^= 1
    with pytest.raises((SyntaxError, OSError)):
        Image.open(BytesIO(bytes(broken))).verify()

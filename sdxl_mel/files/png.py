"""Pixels to the bytes of a PNG, in less than half of Pillow's time.

Pillow tries five filters on every row, which takes as long as packing them: 41 ms for a tile of 16 s of stereo music.
Here each row is the difference from the one above it, and runs are packed: 18 ms, and 0.92 MB instead of 0.83 (0.87 at
zlib's level 3, in 72 ms).
"""

import struct
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo, putchunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FILTER_UP = 2
GREY, RGB = 0, 2
MEMORY_LEVEL = 9


def png_bytes(pixels: NDArray[np.uint8], info: PngInfo) -> bytes:
    """Return pixels (height, width) or (height, width, 3) as a PNG with the text of `info` (PNG 1.2, chapter 4)."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), FILTER_UP, dtype=np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, MEMORY_LEVEL, zlib.Z_RLE)
    file = BytesIO()
    file.write(SIGNATURE)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, GREY if pixels.ndim == 2 else RGB, 0, 0, 0))
    for name, content, *_ in info.chunks:
        putchunk(file, name, content)
    putchunk(file, b"IDAT", packer.compress(filtered.data), packer.flush())
    putchunk(file, b"IEND")
    return file.getvalue()

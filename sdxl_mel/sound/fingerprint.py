"""Fingerprints of tiles by which near-duplicates are found: coarse levels without their means, compared by correlation.

A tile is averaged over 32 x 16 cells, and the mean of every band and of every block is subtracted, which leaves where
and when the sound changes. Measured on rendered and synthetic music: copies through MP3 and Ogg at low quality,
with noise, at another gain or up to 50 ms late are 0.92 to 1.00 alike, other clips of the same track or style at most
0.35. (Signs of differences after Haitsma and Kalker, ISMIR 2002, told copies from others less well on such tiles.)
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sdxl_mel.arrays import Float, Levels

BANDS = 32
BLOCKS = 16
MIN_DEVIATION = 4.0
"""Levels (of 255) by which cells must differ; silence and held tones have no fingerprint."""


def fingerprint(levels: Levels) -> bytes:
    """Return 512 bytes for a tile (n_mels, frames, channels); all zero for a tile that does not vary."""
    cells = _pooled(levels.mean(axis=-1, dtype=np.float32), BANDS, BLOCKS)
    cells = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
    if cells.std() < MIN_DEVIATION:
        return bytes(BANDS * BLOCKS)
    return np.rint(cells * (127.0 / np.abs(cells).max())).astype(np.int8).tobytes()


def similar_pairs(fingerprints: Sequence[bytes], at_least: float) -> Iterator[tuple[int, int, float]]:
    """Yield (earlier, later, similarity) for the most similar earlier fingerprint of each, if similar enough.

    Their similarity is their correlation, 0 where one is all zero.
    """
    cells = np.frombuffer(b"".join(fingerprints), dtype=np.int8).reshape(-1, BANDS * BLOCKS).astype(np.float32)
    vectors = cells / np.maximum(np.linalg.norm(cells, axis=-1, keepdims=True), 1.0)
    for later in range(1, len(vectors)):
        alike = vectors[:later] @ vectors[later]
        best = int(alike.argmax())
        if alike[best] >= at_least:
            yield best, later, float(alike[best])


def _pooled(values: Float, rows: int, columns: int) -> Float:
    """Return means over rows x columns cells of nearly equal size."""
    for axis, cells in ((0, rows), (1, columns)):
        edges = np.arange(cells) * values.shape[axis] // cells
        sizes = np.diff([*edges, values.shape[axis]])
        values = np.add.reduceat(values, edges, axis=axis) / np.expand_dims(sizes, 1 - axis)
    return values

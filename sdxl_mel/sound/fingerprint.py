"""Fingerprints of tiles by which near-duplicates are found: the signs of how band energies change.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): energy differences along bands
and time. Here a difference that is nearly none has no sign, so that silence and held tones do not look alike.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BANDS = 32
BLOCKS = 32
DEAD_ZONE = 0.6
"""Levels (of 255) that a difference must exceed to have a sign."""
MIN_SIGNS = 100
"""With fewer signs in either of two fingerprints nothing can be said."""
SIGN_WORDS = BANDS * BLOCKS // 64

Levels = NDArray[np.uint8]
Words = NDArray[np.uint64]


def fingerprint(levels: Levels) -> bytes:
    """Return 256 bytes: where the differences of a tile (n_mels, frames, channels) are positive, then negative."""
    energy = _pooled(levels.mean(axis=-1, dtype=np.float32), BANDS + 1, BLOCKS + 1)
    change = np.diff(np.diff(energy, axis=0), axis=1)
    signs = np.stack([change > DEAD_ZONE, change < -DEAD_ZONE])
    return np.packbits(signs.reshape(2, -1), axis=-1).tobytes()


def similarity(first: bytes, second: bytes) -> float:
    """Return the share of signs that two fingerprints have in common, 0 where they have too few to tell."""
    found = next(similar_pairs([first, second], 0.0), None)
    return found[2] if found else 0.0


def similar_pairs(fingerprints: Sequence[bytes], at_least: float) -> Iterator[tuple[int, int, float]]:
    """Yield (earlier, later, similarity) for the most similar earlier fingerprint of each, if similar enough."""
    words = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(-1, 2 * SIGN_WORDS)
    counts = np.bitwise_count(words).sum(axis=-1, dtype=np.int32)
    for later in range(1, len(words)):
        both = np.bitwise_count(words[:later] & words[later]).sum(axis=-1, dtype=np.int32)
        either = counts[:later] + counts[later] - both
        enough = np.minimum(counts[:later], counts[later]) >= MIN_SIGNS
        share = np.where(enough, both / np.maximum(either, 1), 0.0)
        best = int(share.argmax())
        if enough[best] and share[best] >= at_least:
            yield best, later, float(share[best])


def _pooled(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return means over rows x columns cells of nearly equal size."""
    for axis, cells in ((0, rows), (1, columns)):
        edges = np.arange(cells) * values.shape[axis] // cells
        sizes = np.diff([*edges, values.shape[axis]])
        sums = np.add.reduceat(values, edges, axis=axis)
        values = sums / np.expand_dims(sizes, 1 - axis)
    return values

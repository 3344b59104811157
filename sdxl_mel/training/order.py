"""Which example is trained when: a function of the seed and of the slot, the running number of a trained example.

Step s of batch b trains slots s b ... (s + 1) b - 1, however they are spread over devices and micro-batches.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sdxl_mel.seeding import numpy_generator

EPOCHS_KEPT = 4


def regularized_before(slot: int, share: float) -> int:
    """Return how many of the first `slot` slots are regularisation: exactly floor(slot * share)."""
    return int(slot * Fraction(str(share)))


def is_regularized(slot: int, share: float) -> bool:
    """Return whether a slot trains an example of the split `regularization`."""
    return regularized_before(slot + 1, share) > regularized_before(slot, share)


class Stream:
    """An endless sequence of examples: each epoch holds every example `repeats` times in a new order."""

    def __init__(self, name: str, repeats: Sequence[int], seed: int) -> None:
        self.name, self.seed = name, seed
        self.epoch = np.repeat(np.arange(len(repeats)), repeats)
        self._shuffled = lru_cache(EPOCHS_KEPT)(self._shuffle)

    def __getitem__(self, place: int) -> int:
        """Return the index of the example at a place of the sequence."""
        epoch, within = divmod(place, len(self.epoch))
        return int(self._shuffled(epoch)[within])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return numpy_generator(self.seed, "order", self.name, epoch).permutation(self.epoch)


def share_of(batch: int, process: int, processes: int) -> range:
    """Return the places of a batch that a process computes; together they are the whole, without overlap."""
    return range(process * batch // processes, (process + 1) * batch // processes)


def micro_batches(places: range, most: int | None) -> list[range]:
    """Return `places` cut into pieces of at most `most`, as even as can be."""
    if not places:
        return []
    pieces = -(-len(places) // (most or len(places)))
    return [places[len(places) * i // pieces : len(places) * (i + 1) // pieces] for i in range(pieces)]

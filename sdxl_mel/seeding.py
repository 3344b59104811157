"""The only source of randomness: every draw is a pure function of a seed and of what is drawn.

So a run that is interrupted and resumed draws what it would have drawn, and an example draws the same numbers
whatever batch it stands in (the idea is EDM2's per-step, per-sample generators).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *what: int | str) -> int:
    """Return a 63-bit seed that depends on `seed` and on every part of `what`, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *what: int | str) -> np.random.Generator:
    """Return numpy's generator for one named draw, e.g. `numpy_generator(seed, "order", epoch)`."""
    return np.random.default_rng(derive_seed(seed, *what))


def torch_generator(seed: int, *what: int | str) -> "torch.Generator":
    """Return torch's CPU generator for one named draw, e.g. `torch_generator(seed, "noise", step, example)`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *what))


@contextmanager
def torch_seeded(seed: int, *what: int | str) -> Iterator[None]:
    """Let libraries that draw from torch's own generator draw what is named while the block runs; see above."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *what))
        yield

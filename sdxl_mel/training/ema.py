"""Moving averages of what is trained: EDM2's power-function profile (arXiv 2312.02696), several lengths at once."""

import math
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import torch


@cache
def power_exponent(length: float) -> float:
    """Return gamma of the power-function profile whose relative standard deviation is `length` (equation 123).

    The largest real root of sigma_rel^2 (gamma + 2)^2 (gamma + 3) = gamma + 1; 0 < length < 0.289.
    """
    if not 0 < length < math.sqrt(1 / 12):
        raise ValueError(f"length {length} is not between 0 and 0.288")
    return float(np.roots([1, 7, 16 - length**-2, 12 - length**-2]).real.max())


def power_decay(step: int, length: float) -> float:
    """Return beta for the update after `step` (1 is the first): average = beta average + (1 - beta) weights."""
    return (1 - 1 / step) ** (power_exponent(length) + 1)


class Averages:
    """Averages of the same tensors over several lengths, each a share of the training so far."""

    def __init__(self, tensors: Iterable[torch.Tensor], lengths: Sequence[float]) -> None:
        weights = [tensor.detach() for tensor in tensors]
        self.lengths = tuple(lengths)
        self.tensors = {length: [tensor.clone() for tensor in weights] for length in lengths}

    @torch.no_grad()
    def update(self, tensors: Iterable[torch.Tensor], step: int) -> None:
        """Take the weights after `step` (1 is the first) into every average."""
        weights = [tensor.detach() for tensor in tensors]
        for length, averages in self.tensors.items():
            torch._foreach_lerp_(averages, weights, 1 - power_decay(step, length))

    @torch.no_grad()
    def feed_back(self, tensors: Iterable[torch.Tensor], share: float) -> None:
        """Move the weights towards the longest average by `share` (1 = replace them)."""
        torch._foreach_lerp_([tensor.detach() for tensor in tensors], self.tensors[max(self.lengths)], share)

"""Moving averages of the adapters: EDM2's power-function profile (arXiv 2312.02696), several lengths at once."""

import math
from collections.abc import Iterable, Sequence

import torch


def power_exponent(length: float) -> float:
    """Return gamma of the power-function profile whose relative standard deviation is `length` (equation 123).

    Solves sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) for its largest real root; 0 < length < 0.289.
    """
    if not 0 < length < math.sqrt(1 / 12):
        raise ValueError(f"length {length} is not between 0 and 0.288")
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        wide = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > length**2
        low, high = (middle, high) if wide else (low, middle)
    return (low + high) / 2


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

"""Rectified flow (arXiv 2209.03003): straight ways from normal noise at time 0 to data at time 1."""

import math
from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""(states, time) -> where they move: the mean of data less noise over all ways that pass there."""
Fresh = Callable[[int], Tensor]
"""The new normal noise of a step, in the shape of the states."""


def state_at(noise: Tensor, data: Tensor, times: Tensor) -> Tensor:
    """Return the states on the ways from noise to data at times 0..1, (batch,)."""
    t = times.view(-1, *(1 for _ in data.shape[1:]))
    return (1 - t) * noise + t * data


def flow(noise: Tensor, velocity: Velocity, steps: int, *, renewal: float = 0.0, fresh: Fresh | None = None) -> Tensor:
    """Return where the flow leads from `noise` in equal steps of Euler's method.

    One step is the mean of the data. With `renewal` each step but the last goes on with noise of which this share of
    the variance is `fresh`; with 1 a step keeps only what it found of the data, as consistency models are sampled
    (arXiv 2303.01469, algorithm 1).
    """
    states = noise
    for step in range(steps):
        time, following = step / steps, (step + 1) / steps
        moved = velocity(states, time)
        if not renewal or fresh is None or step + 1 == steps:
            states = states + (following - time) * moved
            continue
        data, left = states + (1 - time) * moved, states - time * moved
        renewed = math.sqrt(1 - renewal) * left + math.sqrt(renewal) * fresh(step)
        states = following * data + (1 - following) * renewed
    return states

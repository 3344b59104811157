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


def flow(noise: Tensor, velocity: Velocity, steps: int, *, churn: float = 0.0, fresh: Fresh | None = None) -> Tensor:
    """Return where the flow leads from `noise` in equal steps of the midpoint method, two velocities each.

    Euler's method would lose variance: each of its steps goes to the mean of what may come. With `churn` 0..1 each step
    but the first begins that share of its time earlier, `fresh` noise taking the place of what was found there (EDM,
    arXiv 2206.00364, algorithm 2).
    """
    states = noise
    for step in range(steps):
        time, following = step / steps, (step + 1) / steps
        if churn and fresh is not None and step:
            states, time = earlier(states, time, time * (1 - churn), fresh(step)), time * (1 - churn)
        length = following - time
        middle = states + 0.5 * length * velocity(states, time)
        states = states + length * velocity(middle, time + 0.5 * length)
    return states


def earlier(states: Tensor, time: float, before: float, fresh: Tensor) -> Tensor:
    """Return states at `time` > 0 as they might have been at the time `before`, with new noise."""
    kept = before / time
    added = math.sqrt((1 - before) ** 2 - (kept * (1 - time)) ** 2)
    return kept * states + added * fresh

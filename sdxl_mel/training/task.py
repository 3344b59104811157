"""A task says what is trained. The loop asks it these questions and knows nothing else of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

HELD_OUT = "held out"
TRAINED = "trained"


@dataclass(frozen=True)
class Mean:
    """A mean kept as its total and its count, scalars or vectors, so that the means of parts of a batch add up."""

    total: Tensor
    count: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Mean":
        """Return the mean over the values, shape (batch,)."""
        return cls(values.sum(), values.new_full((), len(values)))


@dataclass(frozen=True)
class Losses:
    """What a batch gave: the loss of each example, with gradient, shape (batch,); its sources; what else is logged."""

    each: Tensor
    sources: Sequence[str]
    logged: Mapping[str, Mean]


class Task(Protocol):
    """What is trained, on what, for what; on this process's device.

    Everything it draws is a function of its own seed, the step and the place in the batch, so that a step is the same
    on one device or several, in one piece or in micro-batches, and after a resume.
    """

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Return what is trained, by the name it is saved under."""

    @property
    def extra_state(self) -> Mapping[str, Tensor]:
        """Return what else changes while training; saved, and restored in place."""

    @property
    def judged(self) -> Sequence[str]:
        """Return the names of the sets of examples that `validate` can judge, of HELD_OUT, TRAINED and others."""

    @property
    def judged_by(self) -> str:
        """Return what `validate` measures, e.g. squared error."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return every parameter once, `{"params": [...], "lr": rate}` for each rate."""

    def batch(self, step: int, places: range) -> Any:
        """Return the examples at these places of a step's batch; called ahead of time, from another thread."""

    def losses(self, batch: Any, step: int) -> Losses:
        """Return the losses of such a batch."""

    def validate(self, name: str) -> list[float]:
        """Return the losses on one of the `judged` sets, the same examples every time; all processes call it.

        The loss is their mean: one number, or one for each part of the noise.
        """

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return a line to say after the first validation, or nothing."""

    def save(self, path: Path, step: int) -> None:
        """Write the weights as they are now, after `step` steps, to one file, for comparing them later."""

    def save_result(self, folder: Path, step: int) -> None:
        """Write the weights as they are now as the result of the run, in all its forms."""


def share_of(batch: int, process: int, processes: int) -> range:
    """Return the places of a batch that a process computes; together they are the whole, without overlap."""
    return range(process * batch // processes, (process + 1) * batch // processes)


def micro_batches(places: range, most: int | None) -> list[range]:
    """Return `places` cut into pieces of at most `most`, as even as can be."""
    if not places:
        return []
    pieces = -(-len(places) // (most or len(places)))
    return [places[len(places) * i // pieces : len(places) * (i + 1) // pieces] for i in range(pieces)]

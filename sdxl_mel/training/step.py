"""One optimizer step, and what it measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from accelerate import Accelerator

from sdxl_mel.models.lora.adapters import Adapters
from sdxl_mel.training.batches import Batch
from sdxl_mel.training.model import Model
from sdxl_mel.training.objective import Losses, Objective
from sdxl_mel.training.optimizers import set_rates

DECILES = 10
SUMS = 3 + 2 * DECILES + 1


class Readback:
    """Numbers on their way from the device: asked for at once, read later, so that the device is never waited for."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self._event, self._host = None, numbers
        if numbers.device.type == "cuda":
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        """Return the numbers, waiting only for the work that was queued before them."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


@dataclass(frozen=True)
class Measured:
    """What a step did; `started` is a reading of the clock, `sources` are this device's examples.

    `numbers` holds the sums of the whole batch (loss, squared error, delta, squared error and count of each tenth of
    the timesteps, processes told to stop), then the length of the gradient, then the loss of each of `sources`.
    """

    step: int
    started: float
    rate: float
    sources: Sequence[str]
    numbers: Readback

    @cached_property
    def sums(self) -> list[float]:
        """Return the sums."""
        return self._values[:SUMS]

    @property
    def gradient(self) -> float:
        """Return the length of the gradient before clipping."""
        return self._values[SUMS]

    @property
    def losses(self) -> list[float]:
        """Return the loss of each of `sources`."""
        return self._values[SUMS + 1 :]

    @property
    def told_to_stop(self) -> bool:
        """Return whether any process was told to stop."""
        return self.sums[-1] > 0

    @cached_property
    def _values(self) -> list[float]:
        return self.numbers.read()


def backward(
    model: Model, objective: Objective, batch: Batch, step: int, total: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradient of the mean loss of `total` examples, of which `batch` are some; returns sums and losses.

    Each example counts 1 / total however the whole was cut, so micro-batches of unequal sizes are exact.
    """
    losses = objective(model.predict(batch), batch, step)
    (losses.weighted.sum() / total).backward()
    return summed(losses, batch), losses.weighted.detach()


def summed(losses: Losses, batch: Batch) -> torch.Tensor:
    """Return the sums of a batch that `Measured` holds."""
    tenth = torch.nn.functional.one_hot(batch.timesteps * DECILES // 1000, DECILES).float()
    totals = torch.stack([losses.weighted.detach().sum(), losses.squared.sum(), losses.delta.sum()])
    return torch.cat([totals, losses.squared @ tenth, tenth.sum(dim=0)])


def share_gradients(accelerator: Accelerator, adapters: Adapters, sums: torch.Tensor) -> torch.Tensor:
    """Add up gradients and sums over all processes, in one message; returns the sums."""
    if accelerator.num_processes == 1:
        return sums
    gradients = [parameter.grad for parameter in adapters.parameters() if parameter.grad is not None]
    message = torch.cat([sums, *(gradient.flatten() for gradient in gradients)])
    message = accelerator.reduce(message, reduction="sum")
    pieces = message.split([len(sums), *(gradient.numel() for gradient in gradients)])
    for gradient, piece in zip(gradients, pieces[1:]):
        gradient.copy_(piece.view_as(gradient))
    return pieces[0]


def update(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], factor: float, clip: float
) -> torch.Tensor:
    """Move the weights and forget the gradients; returns the length of the gradient before clipping."""
    length = torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
    set_rates(optimizer, factor)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return length

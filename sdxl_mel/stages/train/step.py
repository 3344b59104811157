"""One optimizer step, and what it measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from sdxl_mel.diffusion.adapters import Adapters
from sdxl_mel.diffusion.optimizers import set_rates
from sdxl_mel.stages.train.batches import Batch
from sdxl_mel.stages.train.model import Model
from sdxl_mel.stages.train.objective import Losses, Objective

DECILES = 10
SUMS = 3 + 2 * DECILES + 1


@dataclass(frozen=True)
class Measured:
    """What a step did, still on the device: sums over the batch, the length of the gradient, who was in it.

    `sums` holds loss, squared error, delta, then squared error and count of each tenth of the timesteps, then how many
    processes were told to stop. `started` is a reading of the clock.
    """

    step: int
    started: float
    sums: torch.Tensor
    gradient: torch.Tensor
    examples: Sequence[tuple[Sequence[str], torch.Tensor]]
    rate: float


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

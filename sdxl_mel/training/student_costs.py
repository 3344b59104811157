"""What a step that distils a UNet costs, counted before it is taken."""

from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdxl_mel.training.costs import Costs, count_costs
from sdxl_mel.training.estimate import CONTEXT_BYTES, UTILISATION, Estimate, speed_of
from sdxl_mel.training.optimizers import OPTIMIZERS
from sdxl_mel.training.settings import LoopSettings
from sdxl_mel.training.task import micro_batches, share_of


def count_distillation(
    student: Any, teacher: Any, *, batch: int, height: int, width: int, dtype: torch.dtype, checkpointing: bool = False
) -> Costs:
    """Count a step on `batch` latents of height x width, each with its text and without, computed in `dtype`.

    The teacher only predicts. Both UNets may lie on any device and are left as they are.
    """
    with torch.device("meta"):
        computed = UNet2DConditionModel.from_config(student.config)
    # Not by its own `to`, which warns of modules that it does not have.
    nn.Module.to(computed, dtype)
    twice = 2 * batch
    own = count_costs(computed, batch=twice, height=height, width=width, dtype=dtype, checkpointing=checkpointing)
    whole = count_costs(teacher, batch=twice, height=height, width=width, dtype=dtype)
    return replace(
        own,
        base_parameters=whole.base_parameters,
        flops=own.flops + whole.flops,
        forward_flops=own.forward_flops + whole.flops,
    )


def memory_of_distillation(costs: Costs, settings: LoopSettings, dtype: torch.dtype) -> dict[str, float]:
    """Return where the memory of a step goes, in bytes; weights are float32, with a copy in a smaller dtype."""
    copied = dtype.itemsize if dtype.itemsize < 4 else 0
    state = OPTIMIZERS[settings.optimizer.name].state_bytes + 4 * len(settings.averages.lengths)
    return {
        "teacher": costs.base_parameters * dtype.itemsize,
        "student, gradients, optimizer": costs.adapter_parameters * (4 + copied + 4 + state),
        "activations": costs.saved_bytes + costs.transient_bytes,
    }


def estimate_distillation(
    student: Any, teacher: Any, latent: tuple[int, int], settings: LoopSettings, processes: int
) -> Estimate:
    """Estimate a step of this run on this device; `latent` is the height and width of latents."""
    dtype, device = teacher.dtype, teacher.device
    share = share_of(settings.batch, 0, processes)
    largest = max((len(piece) for piece in micro_batches(share, settings.micro_batch)), default=1)
    costs = count_distillation(
        student,
        teacher,
        batch=largest,
        height=latent[0],
        width=latent[1],
        dtype=dtype,
        checkpointing=student.is_gradient_checkpointing,
    )
    memory = memory_of_distillation(costs, settings, dtype)
    if device.type == "cuda":
        memory["context"] = CONTEXT_BYTES
    return Estimate(memory, costs.flops * len(share) / largest / (speed_of(device, dtype) * UTILISATION), costs)

"""What a run will take in memory and time, said before the first step and compared with what it took."""

import time
from dataclasses import dataclass

import torch

from sdxl_mel.files.cache import latent_shape
from sdxl_mel.progress import log
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.training.costs import Costs, count_costs, memory_of
from sdxl_mel.training.model import Model
from sdxl_mel.training.settings import LoopSettings
from sdxl_mel.training.task import micro_batches, share_of

CONTEXT_BYTES = 1.2 * 2**30
"""What CUDA, its libraries and their workspaces take beside the tensors."""
UTILISATION = 0.5
"""Share of the speed of one large matrix product that a whole step reaches."""
PROBE = (1024, 2048)
"""Its size on a CPU, and on a GPU."""
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for, their sum, and seconds for a step."""

    memory: dict[str, float]
    seconds: float
    costs: Costs

    @property
    def total(self) -> float:
        """Return all bytes."""
        return sum(self.memory.values())

    def lines(self) -> list[str]:
        """Return the estimate in words."""
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.memory.items())
        return [
            f"estimate: {self.total / GIB:.1f} GiB a device ({parts}), {self.seconds:.2f} s a step",
            f"{self.costs.adapter_parameters / 1e6:.1f} M trained on {self.costs.base_parameters / 1e6:.0f} M, "
            f"{self.costs.flops / 1e12:.2f} TFLOP a micro-batch",
        ]


def estimate(
    model: Model,
    spec: MelSpec,
    settings: LoopSettings,
    processes: int,
    *,
    calls: int = 1,
    asked_again: float = 0.0,
) -> Estimate:
    """Estimate a step of this run on this device; text encoders that are trained are not in it.

    The gradient of an example passes through so many `calls` of the UNet. `asked_again` is the share of examples that
    the base predicts as well, which keeps nothing for the way back.
    """
    share = share_of(settings.batch, 0, processes)
    largest = max((len(piece) for piece in micro_batches(share, settings.micro_batch)), default=1)
    _, height, width = latent_shape(spec)
    checkpointing = model.unet.is_gradient_checkpointing
    costs = count_costs(
        model.unet, batch=largest * calls, height=height, width=width, dtype=model.dtype, checkpointing=checkpointing
    )
    memory = memory_of(costs, settings.optimizer.name, model.dtype, len(settings.averages.lengths))
    if model.device.type == "cuda":
        memory["context"] = CONTEXT_BYTES
    flops = costs.flops + asked_again * costs.forward_flops
    seconds = flops * len(share) / largest / (speed_of(model.device, model.dtype) * UTILISATION)
    return Estimate(memory, seconds, costs)


def speed_of(device: torch.device, dtype: torch.dtype) -> float:
    """Return the measured floating-point operations a second of one large matrix product."""
    size = PROBE[device.type == "cuda"]
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    matrix @ matrix
    _finish(device)
    start = time.perf_counter()
    matrix @ matrix
    _finish(device)
    return 2.0 * size**3 / (time.perf_counter() - start)


def warn_of_memory(expected: Estimate, device: torch.device) -> None:
    """Warn if the estimate exceeds the device."""
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    if expected.total > total:
        size = f"{total / GIB:.1f} GiB"
        log(f"estimate: more than the {size} of this device; see what --dry-run says with other settings")


def compare(expected: Estimate, seconds: float, device: torch.device) -> str:
    """Return what was estimated beside what was measured."""
    measured = f"{seconds:.2f} s a step (estimated {expected.seconds:.2f})"
    if device.type != "cuda":
        return measured
    peak = torch.cuda.max_memory_reserved(device) / GIB
    return f"{measured}, peak {peak:.1f} GiB (estimated {expected.total / GIB:.1f})"


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What a step that trains a VAE's decoder costs, counted before it is taken."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sdxl_mel.training.costs import Costs, count_pass
from sdxl_mel.training.decoder_task import trained_of
from sdxl_mel.training.discriminator import Discriminator
from sdxl_mel.training.estimate import CONTEXT_BYTES, UTILISATION, Estimate, speed_of
from sdxl_mel.training.optimizers import OPTIMIZERS
from sdxl_mel.training.settings import LoopSettings
from sdxl_mel.training.task import micro_batches, share_of

PRODUCTS = (F.conv2d, F.linear)
NORMS = (F.group_norm,)


class _Autocast(TorchFunctionMode):
    """Computes on the meta device in the types that autocast takes on a GPU: products in `dtype`, norms in float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wanted = self.dtype if function in PRODUCTS else torch.float32 if function in NORMS else None
        if wanted is not None:
            args = tuple(each.to(wanted) if isinstance(each, torch.Tensor) else each for each in args)
        return function(*args, **(kwargs or {}))


def count_decoder(
    vae: Any,
    *,
    batch: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    checkpointing: bool = False,
    discriminator: Discriminator | None = None,
) -> Costs:
    """Count a step on `batch` latents of height x width; weights are float32, products in `dtype` by autocast.

    With a discriminator all of them count as drawn ones, which is most: it is called three times of each.
    """
    with torch.device("meta"):
        empty = AutoencoderKL.from_config(vae.config)
        judge = Discriminator(discriminator.channels) if discriminator else None
    trained_of(empty)
    shapes = dict(empty.named_parameters()) | (dict(judge.named_parameters(prefix="judge")) if judge else {})

    def decode() -> torch.Tensor:
        with _Autocast(dtype):
            images: torch.Tensor = empty.decode(torch.empty(batch, 4, height, width)).sample
            if judge:
                made = images[:, : judge.channels]
                held = {name: each.detach() for name, each in judge.named_parameters()}
                answers = [functional_call(judge, held, (made,)), judge(made.detach()), judge(torch.empty_like(made))]
                images = images + torch.stack(answers).mean()
        return images

    return count_pass(empty, shapes, decode, checkpointing=checkpointing)


def memory_of_decoder(costs: Costs, settings: LoopSettings, dtype: torch.dtype) -> dict[str, float]:
    """Return where the memory of a step goes, in bytes; autocast keeps a copy of the weights in a smaller dtype."""
    copied = dtype.itemsize if dtype.itemsize < 4 else 0
    state = OPTIMIZERS[settings.optimizer.name].state_bytes + 4 * len(settings.averages.lengths)
    return {
        "encoder": costs.base_parameters * 4,
        "decoder, gradients, optimizer": costs.adapter_parameters * (4 + copied + 4 + state),
        "activations": costs.saved_bytes + costs.transient_bytes,
    }


def estimate_decoder(
    vae: Any,
    latent: tuple[int, int],
    settings: LoopSettings,
    processes: int,
    *,
    dtype: torch.dtype,
    checkpointing: bool,
    discriminator: Discriminator | None = None,
) -> Estimate:
    """Estimate a step of this run on this device; `latent` is the height and width of the latents of a crop."""
    share = share_of(settings.batch, 0, processes)
    largest = max((len(piece) for piece in micro_batches(share, settings.micro_batch)), default=1)
    height, width = latent
    costs = count_decoder(
        vae,
        batch=largest,
        height=height,
        width=width,
        dtype=dtype,
        checkpointing=checkpointing,
        discriminator=discriminator,
    )
    memory = memory_of_decoder(costs, settings, dtype)
    if vae.device.type == "cuda":
        memory["context"] = CONTEXT_BYTES
    return Estimate(memory, costs.flops * len(share) / largest / (speed_of(vae.device, dtype) * UTILISATION), costs)

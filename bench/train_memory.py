"""What torch keeps of a step for the way back, beside what is counted: one level of SDXL at a time, at true width."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from bench.train_models import SDXL_UNET
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.training.costs import count_costs, empty_inputs

LEVELS = (0, 1, 2)
"""Of SDXL's UNet, 320, 640 and 1280 wide; the first has transformers in its middle alone."""
MIB = 2**20


def rows() -> list[list[str]]:
    """Return what is kept, what is counted and their ratio, a row a level, for latents of 16 x 32."""
    return [_row(level, *kept_and_counted(level, height=16, width=32)) for level in LEVELS]


def kept_and_counted(level: int, height: int, width: int) -> tuple[int, int]:
    """Return the bytes of activations that torch keeps in a UNet of one level of SDXL's, and those that are counted.

    The UNet has adapters of rank 32 on all Linear, in bf16 on the CPU, and one example of height x width latents.
    """
    unet = one_level(level)
    inputs = empty_inputs(unet.config, (1, height, width), torch.bfloat16)
    counted = count_costs(unet, batch=1, height=height, width=width, dtype=torch.bfloat16)
    return kept_bytes(unet, inputs), counted.saved_bytes


def one_level(level: int) -> Any:
    """Return a UNet of one level of SDXL's with its true width; the memory of its weights is as it is found."""
    config = SDXL_UNET | {
        "layers_per_block": 1,
        "down_block_types": SDXL_UNET["down_block_types"][level : level + 1],
        "up_block_types": SDXL_UNET["up_block_types"][::-1][level : level + 1],
        "block_out_channels": SDXL_UNET["block_out_channels"][level : level + 1],
        "attention_head_dim": SDXL_UNET["attention_head_dim"][level : level + 1],
        "transformer_layers_per_block": (1,),
    }
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(config).to(torch.bfloat16)
        attach({"unet": unet}, rank=32, alpha=32)
    return unet.to_empty(device="cpu").train()


def kept_bytes(unet: Any, inputs: Mapping[str, Any]) -> int:
    """Return the bytes that a forward pass and its loss keep beside the weights, each piece of memory once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = unet(**inputs).sample
        F.mse_loss(prediction.float(), torch.empty(prediction.shape))
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


def _row(level: int, kept: int, counted: int) -> list[str]:
    width = SDXL_UNET["block_out_channels"][level]
    what = f"SDXL, {width} wide, activations kept and counted (MiB)"
    return [what, f"{kept / MIB:.1f}", f"{counted / MIB:.1f}", "", f"{counted / kept:.3f}", ""]

"""The precision of a fused model."""

import torch

from sdxl_mel.errors import InputError
from sdxl_mel.models.checkpoint import Checkpoint

DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}


def chosen_dtype(checkpoint: Checkpoint, wanted: str | None, force_bf16: bool) -> torch.dtype:
    """Return the precision to write: the one asked for, else the base's own, fp16 for a bf16 base.

    Raises InputError for bf16 unless it is forced.
    """
    if wanted == "bf16" and not force_bf16:
        raise InputError(
            "--dtype bf16 loses about half of a small LoRA (45 % of a change of 1e-4); take fp16 or fp32, or insist "
            "with --force-bf16"
        )
    if wanted is not None:
        return DTYPES[wanted]
    own = checkpoint.type_of(("unet", "conv_in.weight")).dtype
    return torch.float32 if own in (torch.float32, torch.float64) else torch.float16


def short_name(dtype: torch.dtype) -> str:
    """Return fp16, fp32 or bf16."""
    return next(name for name, known in DTYPES.items() if known == dtype)

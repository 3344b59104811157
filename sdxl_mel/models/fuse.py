"""Base + LoRAs written as one checkpoint, a diffusers folder or a single file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from torch import Tensor

from sdxl_mel.errors import InputError
from sdxl_mel.models.base import open_checkpoint
from sdxl_mel.models.checkpoint_writer import require_space, write_folder, write_single_file
from sdxl_mel.models.fuse_verify import differences, joined
from sdxl_mel.models.fusing import FusedWeights, chosen_dtype, fused_header, match, short_name
from sdxl_mel.models.header import header_files, header_metadata
from sdxl_mel.models.layouts import Param
from sdxl_mel.models.lora.file import Alpha, ScaledLora, read_loras
from sdxl_mel.models.lora.module import Loss
from sdxl_mel.options import Precision
from sdxl_mel.progress import progress

SINGLE_FILE = ".safetensors"


@dataclass(frozen=True)
class Fused:
    """What was written: its precision, what rounding cost, by block and in all, and what the check found by part."""

    dtype: str
    loras: tuple[ScaledLora, ...]
    blocks: Mapping[str, tuple[int, Loss]]
    total: Loss
    differences: Mapping[str, float]


def fuse(
    base: str,
    files: Sequence[str],
    out: Path,
    *,
    scales: Sequence[float] = (),
    dtype: Precision | None = None,
    verify: bool = False,
    alpha: Alpha | None = None,
    configs: Path | None = None,
    force_bf16: bool = False,
) -> Fused:
    """Add LoRAs to a base and stream the sum to a folder, or to a single file where `out` is NAME.safetensors.

    The strength of a LoRA is stated as FILE:0.8 or by `scales`, one a file; `alpha` is that of files that hold none.
    `dtype` None is the base's own, fp16 for a bf16 base. With `verify` base + LoRA and the result are run side by side.
    Raises InputError for an `out` that is there,
    MismatchError for a LoRA of another model, ResourceError where there is no room.
    """
    _refuse_existing(out)
    single = out.suffix == SINGLE_FILE
    loras = read_loras(files, scales, alpha)
    if verify:
        joined(loras)  # Raises InputError for what cannot be verified, before the long work.
    checkpoint, folder = open_checkpoint(base, configs, needs_configs=not single)
    chosen = chosen_dtype(checkpoint, dtype, force_bf16)
    weights = FusedWeights(checkpoint, match(loras, checkpoint, base), chosen)
    header = fused_header(loras, checkpoint, base, short_name(chosen), alpha)
    require_space(out, weights.types)
    with progress(len(weights.types), "fuse", "tensors") as ticker:
        counting = Lock()

        def put(param: Param, place: Tensor) -> None:
            weights.put(param, place)
            with counting:
                ticker.advance()

        if single:
            write_single_file(out, checkpoint, weights.types, put, header_metadata(header))
        else:
            assert folder is not None
            write_folder(out, checkpoint, weights.types, put, configs=folder, extra=header_files(header))
    return Fused(
        dtype=short_name(chosen),
        loras=tuple(loras),
        blocks=weights.by_block(),
        total=weights.total(),
        differences=differences(base, out, loras, configs) if verify else {},
    )


def _refuse_existing(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already; delete it or choose another --out")
    if out.suffix != SINGLE_FILE and out.suffix in (".ckpt", ".pt", ".bin"):
        raise InputError(f"{out}: pickles are not written; choose NAME.safetensors or a folder")

"""The stage `fuse`: base + LoRA -> one checkpoint, as a diffusers folder or a single file."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from sdxl_mel.models.layouts import Param
    from sdxl_mel.models.lora.file import ScaledLora

EXAMPLES = """\
  sdxl-mel fuse --base mini --lora runs/mini/lora.safetensors --out fused
  sdxl-mel fuse --base sd_xl_base_1.0.safetensors --lora a.safetensors --lora b.safetensors --scale 0.8 0.5 \\
      --out fused.safetensors
"""
SINGLE_FILE = ".safetensors"
Precision = Literal["fp16", "fp32", "bf16"]


class Config(StageConfig):
    """Add LoRAs to a base and write the sum. A whole SDXL streams through a few hundred MB of memory."""

    base: str
    """diffusers folder, single .safetensors file, hub id, or mini"""
    lora: tuple[str, ...] = Field(min_length=1)
    """LoRA file; repeat for several; FILE:0.8 states its scale"""
    scale: tuple[float, ...] = ()
    """strength of each --lora in the same order, all or none"""
    out: Path
    """folder to make, or NAME.safetensors for a single file (ComfyUI, A1111)"""
    dtype: Precision | None = None
    """precision of the result; without it the base's, fp16 for a bf16 base"""
    verify: bool = False
    """run base + LoRA and the result side by side and say how far apart they are"""
    alpha: Annotated[float | Literal["rank"] | None, Show.ADVANCED] = None
    """alpha of LoRA files that hold none: a number, or rank for a scale of 1"""
    configs: Annotated[Path | None, Show.ADVANCED] = None
    """diffusers folder with the configs of a single-file base"""
    force_bf16: Annotated[bool, Show.ADVANCED] = False
    """write bf16 although it loses about half of a small LoRA"""


class BlockLoss(BaseModel):
    """One block: tensors changed, the root mean square of the change, the part of it that rounding lost."""

    model_config = ConfigDict(frozen=True)

    block: str
    tensors: int
    change_rms: float
    lost: float


class Report(StageReport):
    """What was fused, and what rounding cost."""

    out: Path
    dtype: str
    loras: tuple[str, ...]
    blocks: tuple[BlockLoss, ...]
    lost: float
    differences: dict[str, float] = {}

    def summary(self) -> str:
        """Return a table by block, the total, and what --verify found."""
        width = max(len(block.block) for block in self.blocks)
        lines = [f"{'block':<{width}}  tensors  change rms  lost to {self.dtype}"]
        lines += [f"{b.block:<{width}}  {b.tensors:7d}  {b.change_rms:10.2e}  {b.lost:8.3%}" for b in self.blocks]
        changed = sum(block.tensors for block in self.blocks)
        lines.append(
            f"fused {' + '.join(self.loras)} into {changed} tensors; rounding lost {self.lost:.3%} of the change"
        )
        lines += [f"verified {part}: differs from base + LoRA by {gap:.1e}" for part, gap in self.differences.items()]
        return "\n".join([*lines, str(self.out)])


def run(config: Config) -> Report:
    """Read the LoRAs, match them to the base, check the disk, and stream the sum to `out`."""
    from sdxl_mel.models.base import open_checkpoint
    from sdxl_mel.models.checkpoint_writer import require_space, write_folder, write_single_file
    from sdxl_mel.models.fusing import FusedWeights, chosen_dtype, fused_header, match, short_name
    from sdxl_mel.models.header import header_files, header_metadata
    from sdxl_mel.models.lora.file import read_loras

    _refuse_existing(config.out)
    single = config.out.suffix == SINGLE_FILE
    loras = read_loras(config.lora, config.scale, config.alpha)
    if config.verify:
        _require_verifiable(loras)
    checkpoint, configs = open_checkpoint(config.base, config.configs, needs_configs=not single)
    dtype = chosen_dtype(checkpoint, config.dtype, config.force_bf16)
    weights = FusedWeights(checkpoint, match(loras, checkpoint, config.base), dtype)
    header = fused_header(loras, checkpoint, config.base, short_name(dtype), config.alpha)
    require_space(config.out, weights.types)
    with progress(len(weights.types), "fuse", "tensors") as ticker:
        counting = Lock()

        def put(param: "Param", out: "Tensor") -> None:
            weights.put(param, out)
            with counting:
                ticker.advance()

        if single:
            write_single_file(config.out, checkpoint, weights.types, put, header_metadata(header))
        else:
            assert configs is not None
            write_folder(config.out, checkpoint, weights.types, put, configs=configs, extra=header_files(header))
    return Report(
        out=config.out,
        dtype=short_name(dtype),
        loras=tuple(f"{path.name} x {scale:g}" for path, _, scale in loras),
        blocks=tuple(
            BlockLoss(block=block, tensors=count, change_rms=loss.change_rms, lost=loss.fraction)
            for block, (count, loss) in weights.by_block().items()
        ),
        lost=weights.total().fraction,
        differences=_differences(config, loras) if config.verify else {},
    )


def _differences(config: Config, loras: "Sequence[ScaledLora]") -> dict[str, float]:
    from sdxl_mel.models.fuse_verify import differences

    return differences(config.base, config.out, loras, config.configs)


def _require_verifiable(loras: "Sequence[ScaledLora]") -> None:
    from sdxl_mel.models.fuse_verify import joined

    joined(loras)


def _refuse_existing(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already; delete it or choose another --out")
    if out.suffix != SINGLE_FILE and out.suffix in (".ckpt", ".pt", ".bin"):
        raise InputError(f"{out}: pickles are not written; choose NAME.safetensors or a folder")

"""`sdxl-mel fuse`: base + LoRA to one checkpoint, as a diffusers folder or a single file."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.options import Precision

EXAMPLES = """\
  sdxl-mel fuse --base mini --lora runs/mini/lora.safetensors --out fused
  sdxl-mel fuse --base sd_xl_base_1.0.safetensors --lora a.safetensors --lora b.safetensors --scale 0.8 0.5 \\
      --out fused.safetensors
"""


class Config(StageConfig):
    """Add LoRAs to a base and write the sum. A whole SDXL streams through a few hundred MB of memory."""

    base: str
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    lora: tuple[str, ...] = Field(min_length=1)
    """LoRA file; repeat for several; FILE:0.8 states its scale"""
    scale: tuple[float, ...] = ()
    """scale of each --lora in the same order, all or none"""
    out: Path
    """folder to make, or NAME.safetensors for a single file (ComfyUI, A1111)"""
    dtype: Precision | None = None
    """precision of the result; none = the base's, fp16 for a bf16 base"""
    vae: str | None = None
    """VAE that replaces the base's own: folder, .safetensors file or hub id"""
    verify: bool = False
    """run base + LoRA and the result side by side and say how far apart they are"""
    alpha: Annotated[float | Literal["rank"] | None, Show.ADVANCED] = None
    """alpha of LoRA files that hold none, a number; none or rank = a scale of 1"""
    configs: Annotated[Path | None, Show.ADVANCED] = None
    """diffusers folder with the configs of a single-file base"""
    force_bf16: Annotated[bool, Show.ADVANCED] = False
    """write bf16 although it loses about half of a small LoRA"""


class BlockLoss(BaseModel):
    """One block: tensors changed, the root mean square of the change, the part of it that rounding lost."""

    model_config = ConfigDict(frozen=True, defer_build=True)

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
    notes: tuple[str, ...] = ()

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
        return "\n".join([*lines, *self.notes, str(self.out)])


def run(config: Config) -> Report:
    """Read the LoRAs, add them to the base, and stream the sum to `out`."""
    fused = sdxl_mel.fuse(
        config.base,
        config.lora,
        config.out,
        scales=config.scale,
        dtype=config.dtype,
        vae=config.vae,
        verify=config.verify,
        alpha=config.alpha,
        configs=config.configs,
        force_bf16=config.force_bf16,
    )
    return Report(
        out=config.out,
        dtype=fused.dtype,
        loras=tuple(f"{path.name} x {scale:g}" for path, _, scale in fused.loras),
        blocks=tuple(
            BlockLoss(block=block, tensors=count, change_rms=loss.change_rms, lost=loss.fraction)
            for block, (count, loss) in fused.blocks.items()
        ),
        lost=fused.total.fraction,
        differences=dict(fused.differences),
        notes=fused.notes,
        skipped=fused.left_out,
    )

"""The stage `export`: base + LoRA -> a page that draws in the browser, or its ONNX models alone."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.diffusion.samplers import Drawing
from sdxl_mel.export.options import PART_BYTES, LoraMode, Sampler, Weights
from sdxl_mel.options import Format

EXAMPLES = """\
  sdxl-mel export --base mini --out site
  sdxl-mel export --base mini --lora my.safetensors:0.8 --out site
  sdxl-mel export --base STUDENT --lora my.safetensors --lora-mode factors --out site
  sdxl-mel export --base mini --lora my.safetensors --single-file --out page.html
  sdxl-mel export --base mini --onnx-only --weights fp32 --out models"""


class Config(StageConfig):
    """Make a page that draws in the browser and needs no server, from a base and LoRAs."""

    base: str
    """base model: hub id, diffusers folder, .safetensors file or mini; SDXL's students fit, SDXL itself does not"""
    out: Path
    """folder to make, for any static host; a file with --single-file"""
    lora: tuple[str, ...] = ()
    """LoRA file; repeat for several; FILE:0.8 states its scale"""
    vae: str | None = None
    """VAE that replaces the base's own: folder, .safetensors file or hub id"""
    weights: Weights = "int8"
    """how weights are stored: int8 is smallest, fp16 twice as large, fp32 exact"""
    single_file: bool = False
    """write one page, --out NAME.html, that opens from a disk"""
    onnx_only: bool = False
    """write the models and their manifest alone, for other runtimes"""
    lora_mode: LoraMode = "fused"
    """LoRAs added into the weights, or as factors that the page can scale and exchange"""
    step_lora: str | None = None
    """step adapter: a LoRA for few steps, in a UNet of its own with which the page draws quickly"""
    webgpu: Path | None = None
    """folder of the npm package onnxruntime-web, unpacked: the page tries its WebGPU, and takes what is faster"""
    title: str | None = None
    """title of the page; none = the name of the LoRA, or of the base"""
    example: str = ""
    """prompt to show in the empty field"""
    sampler: Sampler | None = None
    """what the page draws with; none = the model's own, or dpmpp_2m"""
    steps: int | None = Field(None, ge=1)
    """sampling steps; none = the model's own, or 10"""
    guidance: float | None = Field(None, ge=0)
    """classifier-free guidance, 1 = off; none = the model's own, or 5"""
    lora_rank: Annotated[int | None, Show.ADVANCED] = Field(None, ge=1)
    """rank of the factors, so that the page takes LoRAs up to it; none = that of the LoRAs given, together"""
    part_bytes: Annotated[int, Show.ADVANCED] = Field(PART_BYTES, ge=1 << 10)
    """files are cut into parts of so many bytes; hosts limit the size of a file"""
    preset: Annotated[Format | None, Show.ADVANCED] = None
    """format of the pictures where neither the LoRA nor the base says one"""
    anchor: Annotated[str | None, Show.ADVANCED] = None
    """anchor where there is no LoRA that says one"""
    clip_skip: Annotated[int | None, Show.ADVANCED] = Field(None, ge=0)
    """text encoder layers skipped beyond SDXL's own, where there is no LoRA that says it"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.single_file and self.onnx_only:
            raise ValueError("--single-file is a page, and --onnx-only leaves the page out; give one of the two")
        if self.single_file and self.out.suffix != ".html":
            raise ValueError(f"--single-file writes one page; give --out a name that ends in .html, not {self.out}")
        if self.webgpu is not None and self.onnx_only:
            raise ValueError(
                "--webgpu is a runtime of the page, and --onnx-only leaves the page out; give one of the two"
            )
        if self.lora_rank is not None and self.lora_mode != "factors":
            raise ValueError("--lora-rank is that of --lora-mode factors; give both or none")
        return self


class Report(StageReport):
    """What was written, in bytes, and how near it is to the base."""

    out: Path
    weights: Weights
    sizes: dict[str, int]
    graph_errors: dict[str, float]
    picture_error: float

    def summary(self) -> str:
        """Return a line a model, and the total."""
        lines = [
            f"{name}: {size / 1e6:.2f} MB" + (f", off by {error:.1e} against torch" if error is not None else "")
            for name, size in self.sizes.items()
            for error in [self.graph_errors.get(name)]
        ]
        total = sum(self.sizes.values()) / 1e6
        lines.append(f"in all {total:.1f} MB; {self.weights} weights change a picture by {self.picture_error:.1e} of 1")
        return "\n".join([*lines, str(self.out)])


def run(config: Config) -> Report:
    """Export the models, check them, and write the page around them."""
    from sdxl_mel.export import description, site

    chosen = description.Chosen(
        base=config.base,
        loras=config.lora,
        lora_mode=config.lora_mode,
        lora_rank=config.lora_rank,
        step_lora=config.step_lora,
        weights=config.weights,
        drawing=Drawing(config.sampler, config.steps, config.guidance),
        preset=config.preset,
        anchor=config.anchor,
        clip_skip=config.clip_skip,
        title=config.title,
        example=config.example,
        vae=config.vae,
    )
    if config.single_file:
        written = site.export_single_file(chosen, config.out, config.webgpu)
    else:
        written = site.export_folder(
            chosen, config.out, config.part_bytes, page=not config.onnx_only, webgpu=config.webgpu
        )
    return Report(
        out=config.out,
        weights=config.weights,
        sizes=written.sizes(),
        graph_errors=dict(written.graph_errors),
        picture_error=written.picture_error,
    )

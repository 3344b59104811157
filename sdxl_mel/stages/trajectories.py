"""The stage `trajectories`: a teacher draws, and every point of its way from noise is kept for `train --task steps`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.diffusion.options import WalkSampler
from sdxl_mel.diffusion.samplers import MOST_TIMESTEP
from sdxl_mel.options import Format
from sdxl_mel.synthesis.settings import Precision, listed

EXAMPLES = """\
  sdxl-mel trajectories --base mini --cache data/demo-cache --count 400 --out data/mini-trajectories
  sdxl-mel trajectories --base BASE --lora style.safetensors --prompts prompts.txt --out data/trajectories"""


class Config(StageConfig):
    """Draw with a teacher, a base or a base with LoRAs, and keep every point from noise to the clean latent.

    Run it again after an interruption, or with a larger --count: what is there is kept.
    """

    base: Annotated[str, UNRECORDED]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    lora: Annotated[tuple[str, ...], BeforeValidator(listed), UNRECORDED] = ()
    """LoRA that the teacher draws with; repeat for several; FILE:0.8 states its scale"""
    cache: Annotated[Path | None, UNRECORDED] = None
    """cache whose training captions are drawn"""
    prompts: Annotated[Path | None, UNRECORDED] = None
    """file of prompts that are drawn instead: .txt (one a line), .csv or .jsonl"""
    out: Annotated[Path, UNRECORDED]
    """folder of the trajectories"""
    count: int = Field(1000, ge=2)
    """trajectories"""
    steps: int = Field(24, ge=2)
    """points of each: a number that those to be trained divide"""
    sampler: WalkSampler = "ddim"
    """how the teacher steps: dpmpp_2m, of second order, needs half the points"""
    first: int | None = Field(None, ge=1, le=MOST_TIMESTEP)
    """timestep of its first step, none = that of pure noise; 961 is that of 25 leading steps"""
    guidance: float | None = Field(None, ge=0)
    """classifier-free guidance that will be learnt; none = the model's own"""
    seed: int = 0
    """seed of the noise and of the order of the prompts"""
    anchor: Annotated[str | None, Show.ADVANCED] = None
    """anchor where neither the base nor a LoRA says one; none = that of the cache"""
    preset: Annotated[Format | None, Show.ADVANCED] = None
    """format of the pictures where neither the base, nor a LoRA, nor a cache says one"""
    batch: Annotated[int, Show.ADVANCED, UNRECORDED] = Field(8, ge=1)
    """trajectories in the UNet at a time"""
    dtype: Annotated[Precision, Show.ADVANCED] = "auto"
    """numbers of the UNet and the text encoders; auto = fp16 on a GPU, else fp32"""
    device: Annotated[str, Show.ADVANCED, UNRECORDED] = "auto"
    """cuda, mps or cpu"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.cache is None) == (self.prompts is None):
            raise ValueError("give one of --cache and --prompts")
        return self


class Report(StageReport):
    """What the folder holds."""

    folder: str
    count: int
    points: int
    guidance: float
    drawn: int
    damaged: int

    def summary(self) -> str:
        """Return it in words."""
        lines = [
            f"{self.folder}: {self.count} trajectories of {self.points} points at guidance {self.guidance:g}; drawn "
            f"now: {self.drawn}"
        ]
        return "\n".join([*lines, *([f"{self.damaged} damaged files were made anew"] if self.damaged else [])])


def run(config: Config) -> Report:
    """Draw what is not there yet."""
    from sdxl_mel.training import trajectories

    teacher = trajectories.open_teacher(
        config.base,
        config.lora,
        cache=config.cache,
        preset=config.preset,
        anchor=config.anchor,
        dtype=config.dtype,
        device=config.device,
    )
    guidance = teacher.settle().sampling.guidance if config.guidance is None else config.guidance
    made = trajectories.make_trajectories(
        config.out,
        teacher,
        trajectories.texts_for(teacher, config.cache, config.prompts),
        trajectories.Course(config.steps, config.sampler, config.first, guidance),
        count=config.count,
        seed=config.seed,
        batch=config.batch,
    )
    return Report(
        folder=str(config.out),
        count=config.count,
        points=config.steps,
        guidance=guidance,
        drawn=made.drawn,
        damaged=made.damaged,
    )

"""What can be asked of the synthesis engine, as small values; settings and help read them without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.assets import STEP_ADAPTER, step_adapter
from sdxl_mel.config import UNRECORDED, StageConfig
from sdxl_mel.diffusion.samplers import SAMPLERS, Drawing, Merge, SamplerPreset, parse_timesteps
from sdxl_mel.errors import InputError
from sdxl_mel.options import Container, Format

Mode = Literal["joint", "extend", "independent"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
SoundFormat = Literal[Container, "none"]
Method = Literal["best", "fast"]
"""How a sound is made from its picture."""


@dataclass(frozen=True)
class Length:
    """How long a result is, None = one tile, and how the views of a long piece lie."""

    seconds: float | None = None
    loop: bool = False
    mode: Mode = "joint"
    overlap: str | None = None
    merge: Merge = "swap"


@dataclass(frozen=True)
class Asked:
    """What a person asks of drawing, where the models' own wishes are not followed."""

    drawing: Drawing = Drawing()
    preset: SamplerPreset | None = None
    rescale: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Output:
    """The folder of results, what is written there beside the pictures, and whether other results may be replaced."""

    path: Path
    sound: SoundFormat = "wav"
    method: Method = "best"
    plot: bool = False
    overwrite: bool = False


def listed(value: Any) -> Any:
    """Return one LoRA as a list of one."""
    return [str(value)] if isinstance(value, str | Path) else [] if value is None else [str(each) for each in value]


class ModelSettings(StageConfig):
    """The settings of a stage that draws: which models, and how they draw."""

    # Some are unrecorded because the record of a result holds what was found: its anchor, its guidance.
    base: Annotated[str, UNRECORDED]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    lora: Annotated[tuple[str, ...], BeforeValidator(listed), UNRECORDED] = ()
    """LoRA file; repeat for several; FILE:0.8 states its scale, FILE:0.8@0.3-1#style when and where it acts"""
    lora_scale: Annotated[float, Show.ADVANCED] = 1.0
    """scale of every --lora"""
    few_steps: Annotated[bool, UNRECORDED] = False
    """draw in few steps, with the step adapter that the base carries"""
    sampler: str | None = Field(None, description=f"{', '.join(SAMPLERS)}, ...; none = the model's own, or euler")
    steps: int | None = Field(None, ge=1)
    """sampling steps; none = the model's own, or 30"""
    guidance: Annotated[float | None, UNRECORDED] = Field(None, ge=0)
    """classifier-free guidance, 1 = off; none = the model's own, or 5"""
    sampler_preset: Annotated[SamplerPreset | None, UNRECORDED] = None
    """sampler, steps, guidance and timesteps of a kind of few-step model"""
    preset: Annotated[Format | None, Show.ADVANCED] = None
    """format of the pictures where neither the LoRA nor the base says one"""
    anchor: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """anchor where there is no LoRA that says one"""
    clip_skip: Annotated[int | None, Show.ADVANCED, UNRECORDED] = Field(None, ge=0)
    """text encoder layers skipped beyond SDXL's own, where there is no LoRA that says it"""
    timesteps: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """where the steps lie: trailing, leading, linspace, or each of them: 999,749,499,249; none = the model's own"""
    rescale: Annotated[float, Show.ADVANCED] = Field(0.0, ge=0, le=1)
    """guidance rescale (arXiv 2305.08891); 0.7 tames high guidance"""
    guidance_interval: Annotated[tuple[float, float], Show.ADVANCED] = (0.0, 1.0)
    """noise levels that are guided, 0 = clean to 1 = noise (arXiv 2404.07724); the others take half the time"""
    batch: Annotated[int, Show.ADVANCED, UNRECORDED] = Field(4, ge=1)
    """tiles or views in the UNet at a time"""
    vae: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """another VAE than the base's own"""
    dtype: Annotated[Precision, Show.ADVANCED, UNRECORDED] = "auto"
    """numbers of the UNet and the text encoders; the VAE is always fp32; auto = fp16 on a GPU, else fp32"""
    device: Annotated[str, Show.ADVANCED, UNRECORDED] = "auto"
    """cuda, mps or cpu"""
    offload: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """keep each model on the device only while it works, for small cards"""
    slicing: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """compute attention in slices: slower, less memory"""

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1] <= 1:
            raise ValueError("--guidance-interval takes two noise levels, 0 <= LOW < HIGH <= 1, such as 0.3 1")
        return self

    def opened(self) -> dict[str, Any]:
        """Return the arguments of `Generator.open`. Raises InputError where the base carries no step adapter."""
        names = ("base", "vae", "dtype", "device", "offload", "slicing", "preset", "anchor", "clip_skip")
        adapters = (self._step_adapter(),) if self.few_steps else ()
        scales = [*([self.lora_scale] * len(self.lora)), *(1.0 for _ in adapters)] if self.lora_scale != 1 else ()
        return {name: getattr(self, name) for name in names} | {"loras": (*self.lora, *adapters), "scales": scales}

    def _step_adapter(self) -> str:
        path = step_adapter(self.base)
        if path is None:
            raise InputError(f"--few-steps: {self.base} carries no {STEP_ADAPTER}; give a step adapter with --lora")
        return str(path)

    def asked(self) -> Asked:
        """Return what is stated of drawing."""
        timesteps = parse_timesteps(self.timesteps, "--timesteps") if self.timesteps else None
        drawing = Drawing(self.sampler, self.steps, self.guidance, timesteps)
        return Asked(drawing, self.sampler_preset, self.rescale, self.guidance_interval)

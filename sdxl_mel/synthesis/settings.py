"""The settings of generate."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig
from sdxl_mel.options import Method

Mode = Literal["joint", "extend", "independent"]
Merge = Literal["swap", "average", "roll"]


class Config(StageConfig):
    """Draw tiles or long pieces from prompts, and make their sound."""

    base: str
    """Base model: hub id, diffusers folder, .safetensors file or mini."""
    out: Path
    """Folder for 0001.png, 0001.wav, ... and the list of them."""
    prompt: str | None = None
    """What to play. The LoRA's anchor is put before it."""
    prompts: Path | None = None
    """A file of prompts instead: .txt (one a line), .csv or .jsonl."""
    lora: Path | None = None
    """A LoRA; its header says picture format, anchor and clip skip."""
    lora_scale: float = 1.0
    """How strongly the LoRA acts."""
    num: int = Field(1, ge=1)
    """Results for each prompt, with the seeds seed, seed + 1, ..."""
    seed: int = 0
    """Each result depends on its own seed, not on its neighbours."""
    seconds: float | None = Field(None, gt=0)
    """Length of each result, long pieces too. None = one tile."""
    loop: bool = False
    """Make the end lead into the start, in the picture and in the sound."""
    negative_prompt: str = ""
    """What to keep away from."""
    sampler: str = "euler"
    """euler, euler_a, ddim, dpmpp_2m, unipc, heun, lcm, ..."""
    steps: int = Field(30, ge=1)
    """Sampling steps."""
    guidance: float | None = Field(None, ge=0)
    """Classifier-free guidance, 1 = none. None = the model's own, or 5."""
    format: Literal["wav", "flac", "ogg", "none"] = "wav"
    """The sound files; none = pictures only."""
    mode: Mode = "joint"
    """Long pieces: views drawn together, tiles in a row, or apart."""
    schedule: str | None = None
    """Prompts over time: "0:00 solo piano | 0:30 drums enter"."""
    prompt_to: str | None = None
    """Travel there from --prompt, over the piece or the --num tiles."""
    init: Path | None = None
    """Sound or picture to vary (--strength) or fill a gap of (--inpaint)."""
    init_start: Annotated[float, Show.ADVANCED] = Field(0.0, ge=0)
    """Where in --init the tile starts, in seconds."""
    strength: float = Field(0.6, gt=0, le=1)
    """How far from --init: 0.3 keeps most, 1 nothing."""
    inpaint: str | None = None
    """Draw only these seconds of --init anew: 1.5-3."""
    best_of: int = Field(1, ge=1)
    """Keep the best of so many: consistent, and near its prompt."""
    clap: Annotated[str | None, Show.ADVANCED] = None
    """CLAP that says how near a candidate is to its prompt: a folder or hub id. None = tag bridge, if installed."""
    plot: Annotated[bool, Show.ADVANCED] = False
    """Also draw each result with a time axis and, for long pieces, the joins."""
    overwrite: bool = False
    """Replace results of another command in --out."""
    preset: Annotated[str | None, Show.ADVANCED] = None
    """Picture format where neither the LoRA nor the base says one."""
    anchor: Annotated[str | None, Show.ADVANCED] = None
    """Anchor where there is no LoRA that says one."""
    clip_skip: Annotated[int | None, Show.ADVANCED] = Field(None, ge=0)
    """Text encoder layers skipped beyond SDXL's own, where there is no LoRA that says it."""
    rescale: Annotated[float, Show.ADVANCED] = Field(0.0, ge=0, le=1)
    """Guidance rescale (arXiv 2305.08891); 0.7 tames high guidance."""
    guidance_interval: Annotated[tuple[float, float], Show.ADVANCED] = (0.0, 1.0)
    """Noise levels that are guided, 0 = clean to 1 = noise (arXiv 2404.07724); the others take half the time."""
    overlap: Annotated[str | None, Show.ADVANCED] = None
    """How much views or tiles of a long piece share. None = 50% joint, 37.5% extend, 25% independent."""
    merge: Annotated[Merge, Show.ADVANCED] = "swap"
    """What joint views do where they overlap: take turns (SaFa), average (MultiDiffusion), or roll (SpotDiffusion)."""
    batch: Annotated[int, Show.ADVANCED] = Field(4, ge=1)
    """Tiles or views in the UNet at a time."""
    vae: Annotated[str | None, Show.ADVANCED] = None
    """Another VAE than the base's own."""
    dtype: Annotated[Literal["auto", "fp32", "fp16", "bf16"], Show.ADVANCED] = "auto"
    """Numbers of the UNet and the text encoders; the VAE is always fp32. Auto = fp16 on a GPU, else fp32."""
    device: Annotated[str, Show.ADVANCED] = "auto"
    """cuda, mps or cpu."""
    offload: Annotated[bool, Show.ADVANCED] = False
    """Keep each model on the device only while it works, for small cards."""
    slicing: Annotated[bool, Show.ADVANCED] = False
    """Compute attention in slices: slower, less memory."""
    method: Annotated[Method, Show.ADVANCED] = "best"
    """How the sound is made from the picture."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [
            (
                sum(given is not None for given in (self.prompt, self.prompts, self.schedule)) != 1,
                "give one of --prompt, --prompts and --schedule",
            ),
            (self.prompt_to is not None and self.prompt is None, "--prompt-to needs --prompt"),
            (self.schedule is not None and self.seconds is None, "--schedule needs --seconds"),
            (self.inpaint is not None and self.init is None, "--inpaint needs --init, the sound whose gap is filled"),
            (self.init is not None and self.seconds is not None, "--init makes one tile; leave --seconds out"),
            (
                not 0 <= self.guidance_interval[0] < self.guidance_interval[1] <= 1,
                "--guidance-interval takes two noise levels, 0 <= LOW < HIGH <= 1, such as 0.3 1",
            ),
            (self.init is not None and self.loop, "--init cannot be made a loop; stitch --loop can"),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        return self

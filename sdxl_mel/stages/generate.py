"""The stage `generate`: prompts -> tiles or long pieces, and their sound."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.diffusion.samplers import SAMPLERS, Drawing, Merge, SamplerPreset, Timesteps, parse_timesteps
from sdxl_mel.files.prompts import PromptLine, read_prompts
from sdxl_mel.options import Format
from sdxl_mel.synthesis.jobs import Prompts
from sdxl_mel.synthesis.manifest import Entry
from sdxl_mel.synthesis.settings import InitFile, Length, Method, Mode, Output, Precision, SoundFormat

if TYPE_CHECKING:
    from sdxl_mel.synthesis.session import Generator

EXAMPLES = """\
  sdxl-mel generate --base mini --prompt "violin ballad with soft piano" --num 4 --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompts prompts.csv --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompt "slow piano" --seconds 60 --out song
  sdxl-mel generate --base BASE --seconds 60 --schedule "0:00 solo piano | 0:30 drums enter" --out song
  sdxl-mel generate --base mini --prompt "drum groove" --seconds 4 --loop --out loop
  sdxl-mel generate --base mini --prompt "same, with strings" --init clip.wav --strength 0.5 --out variation"""


def _listed(value: Any) -> Any:
    """Return one LoRA as a list of one."""
    return [str(value)] if isinstance(value, str | Path) else [] if value is None else [str(each) for each in value]


class Config(StageConfig):
    """Draw tiles or long pieces from prompts, and make their sound."""

    # Some settings are unrecorded here because the record of a result holds its own: its prompt, its seed, its anchor.
    base: Annotated[str, UNRECORDED]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    out: Annotated[Path, UNRECORDED]
    """folder for 0001.png, 0001.wav, ... and the list of them"""
    prompt: Annotated[str | None, UNRECORDED] = None
    """what to play; the LoRA's anchor is put before it"""
    prompts: Annotated[Path | None, UNRECORDED] = None
    """a file of prompts instead: .txt (one a line), .csv or .jsonl"""
    lora: Annotated[tuple[str, ...], BeforeValidator(_listed), UNRECORDED] = ()
    """LoRA file; repeat for several; FILE:0.8 states its scale"""
    lora_scale: Annotated[float, Show.ADVANCED] = 1.0
    """strength of every --lora"""
    num: Annotated[int, UNRECORDED] = Field(1, ge=1)
    """results for each prompt, with the seeds seed, seed + 1, ..."""
    seed: Annotated[int, UNRECORDED] = 0
    """each result depends on its own seed, not on its neighbours"""
    seconds: float | None = Field(None, gt=0)
    """length of each result, long pieces too; none = one tile"""
    loop: bool = False
    """make the end lead into the start, in the picture and in the sound"""
    negative_prompt: Annotated[str, UNRECORDED] = ""
    """what to keep away from"""
    sampler: str | None = Field(None, description=f"{', '.join(SAMPLERS)}, ...; none = the model's own, or euler")
    steps: int | None = Field(None, ge=1)
    """sampling steps; none = the model's own, or 30"""
    guidance: Annotated[float | None, UNRECORDED] = Field(None, ge=0)
    """classifier-free guidance, 1 = off; none = the model's own, or 5"""
    sampler_preset: Annotated[SamplerPreset | None, UNRECORDED] = None
    """sampler, steps, guidance and timesteps of a kind of few-step model"""
    format: Annotated[SoundFormat, UNRECORDED] = "wav"
    """the sound files; none = pictures only"""
    mode: Mode = "joint"
    """long pieces: views drawn together, tiles in a row, or apart"""
    schedule: str | None = None
    """prompts over time: "0:00 solo piano | 0:30 drums enter\""""
    prompt_to: str | None = None
    """travel there from --prompt, over the piece or the --num tiles"""
    init: Annotated[Path | None, UNRECORDED] = None
    """sound or picture to vary (--strength) or fill a gap of (--inpaint)"""
    init_start: Annotated[float, Show.ADVANCED] = Field(0.0, ge=0)
    """where in --init the tile starts, in seconds"""
    strength: float = Field(0.6, gt=0, le=1)
    """how far from --init: 0.3 keeps most, 1 nothing"""
    inpaint: Annotated[str | None, Show.ADVANCED] = None
    """draw only these seconds of --init anew: 1.5-3"""
    best_of: int = Field(1, ge=1)
    """keep the best of so many: consistent, and near its prompt"""
    clap: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """CLAP that says how near a candidate is to its prompt: a folder or hub id; none = tag bridge, if installed"""
    plot: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """also draw each result with a time axis and, for long pieces, the joins"""
    overwrite: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """replace results of another command in --out"""
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
    overlap: Annotated[str | None, Show.ADVANCED] = None
    """how much views or tiles of a long piece share; none = 50% joint, 37.5% extend, 25% independent"""
    merge: Annotated[Merge, Show.ADVANCED] = "swap"
    """what joint views do where they overlap: take turns (SaFa), average (MultiDiffusion), or roll (SpotDiffusion)"""
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
    method: Annotated[Method, Show.ADVANCED, UNRECORDED] = "best"
    """how the sound is made from the picture"""

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


class Report(StageReport):
    """The results, what was cut from prompts, and what was stated against what a model asks for."""

    folder: str
    results: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a line a result."""
        lines = [f"{self.folder}: {len(self.results)} results, listed in manifest.json"]
        for result in self.results[:20]:
            files = result.picture + (f" + {result.sound}" if result.sound else "")
            lines.append(f"  {files}: {result.seconds:.2f} s, seed {result.seed}, {result.prompt}{_joins(result)}")
        if len(self.results) > 20:
            lines.append(f"  ... and {len(self.results) - 20} more")
        return "\n".join([*lines, *self.notes])


def run(config: Config, open_generator: "Callable[..., Generator] | None" = None) -> Report:
    """Draw every result that is not there yet; an interruption keeps those that are finished.

    `open_generator` takes the place of `Generator.open` where a base is open already.
    """
    from sdxl_mel.synthesis.session import Generator, generate

    lines = (
        read_prompts(config.prompts) if config.prompts else [PromptLine(prompt=config.prompt or config.schedule or "")]
    )
    entries, notes = generate(
        lambda: (open_generator or Generator.open)(
            config.base,
            loras=config.lora,
            scales=[config.lora_scale] * len(config.lora) if config.lora_scale != 1 else (),
            vae=config.vae,
            dtype=config.dtype,
            device=config.device,
            offload=config.offload,
            slicing=config.slicing,
            preset=config.preset,
            anchor=config.anchor,
            clip_skip=config.clip_skip,
            keep_base=False,
        ),
        Prompts(lines, config.num, config.seed, config.negative_prompt, config.schedule, config.prompt_to),
        Output(config.out, config.format, config.method, config.plot, config.overwrite),
        drawing=Drawing(config.sampler, config.steps, config.guidance, _timesteps(config)),
        preset=config.sampler_preset,
        rescale=config.rescale,
        guidance_interval=config.guidance_interval,
        length=Length(config.seconds, config.loop, config.mode, config.overlap, config.merge),
        init=InitFile(config.init, config.init_start, config.strength, config.inpaint) if config.init else None,
        best_of=config.best_of,
        clap=config.clap,
        batch=config.batch,
        settings=config.recorded(),
    )
    return Report(folder=str(config.out), results=entries, notes=notes)


def _timesteps(config: Config) -> Timesteps | None:
    return parse_timesteps(config.timesteps, "--timesteps") if config.timesteps else None


def _joins(result: Entry) -> str:
    """Return how much the joins of a long piece stand out: about 0 for an ordinary moment, above 2 is heard."""
    known = [score for score in result.seam_scores if score is not None]
    parts = [f"seam z {sum(known) / len(known):+.2f}, worst {max(known):+.2f} of {len(known)} joins"] if known else []
    if result.junction is not None:
        parts.append(f"loop junction z {result.junction:+.2f}")
    return "".join(f"; {part}" for part in parts)

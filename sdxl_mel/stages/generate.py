"""The stage `generate`: prompts -> tiles or long pieces, and their sound."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageReport
from sdxl_mel.diffusion.samplers import Merge
from sdxl_mel.files.prompts import PromptLine, read_prompts
from sdxl_mel.files.results import Entry
from sdxl_mel.synthesis.jobs import Prompts
from sdxl_mel.synthesis.settings import Length, Method, Mode, ModelSettings, Output, SoundFormat

if TYPE_CHECKING:
    from sdxl_mel.synthesis.session import Generator

EXAMPLES = """\
  sdxl-mel generate --base mini --prompt "violin ballad with soft piano" --num 4 --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompts prompts.csv --out clips
  sdxl-mel generate --base BASE --lora my.safetensors --prompt "slow piano" --seconds 60 --out song
  sdxl-mel generate --base BASE --seconds 60 --schedule "0:00 solo piano | 0:30 drums enter" --out song
  sdxl-mel generate --base mini --prompt "drum groove" --seconds 4 --loop --out loop"""


class Config(ModelSettings):
    """Draw tiles or long pieces from prompts, and make their sound."""

    out: Annotated[Path, UNRECORDED]
    """folder for 0001.png, 0001.wav, ... and the list of them"""
    prompt: Annotated[str | None, UNRECORDED] = None
    """what to play; the LoRA's anchor is put before it"""
    prompts: Annotated[Path | None, UNRECORDED] = None
    """a file of prompts instead: .txt (one a line), .csv or .jsonl"""
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
    format: Annotated[SoundFormat, UNRECORDED] = "wav"
    """the sound files; none = pictures only"""
    mode: Mode = "joint"
    """long pieces: views drawn together, tiles in a row, or apart"""
    schedule: str | None = None
    """prompts over time: "0:00 solo piano | 0:30 drums enter\""""
    prompt_to: str | None = None
    """travel there from --prompt, over the piece or the --num tiles"""
    best_of: int = Field(1, ge=1)
    """keep the best of so many: consistent, and near its prompt"""
    clap: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """CLAP that says how near a candidate is to its prompt: a folder or hub id; none = tag-score, if installed"""
    ab: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """draw every result with the LoRAs and without, into two folders, and compare them on ab.html"""
    plot: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """also draw each result with a time axis and, for long pieces, the joins"""
    overwrite: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """replace results of another command in --out"""
    refine: Annotated[bool, Show.ADVANCED, UNRECORDED] = False
    """restore what the VAE smoothed, with the refiner that the base carries"""
    refine_steps: Annotated[int | None, Show.ADVANCED, UNRECORDED] = Field(None, ge=1)
    """steps of the refiner; none = as many as it asks for"""
    overlap: Annotated[str | None, Show.ADVANCED] = None
    """how much views or tiles of a long piece share; none = 50% joint, 37.5% extend, 25% independent"""
    merge: Annotated[Merge, Show.ADVANCED] = "swap"
    """what joint views do where they overlap: take turns (SaFa), average (MultiDiffusion), or roll (SpotDiffusion)"""
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
            (self.refine_steps is not None and not self.refine, "--refine-steps needs --refine"),
            (self.ab and not self.lora, "--ab needs --lora, which is put on and off"),
            (self.ab and self.format == "none", "--ab compares sounds; leave --format none out"),
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
            prompt = " ".join(result.prompt.split())
            lines.append(f"  {files}: {result.seconds:.2f} s, seed {result.seed}, {prompt}{_joins(result)}")
        if len(self.results) > 20:
            lines.append(f"  ... and {len(self.results) - 20} more")
        return "\n".join([*lines, *self.notes])


def run(config: Config, open_generator: "Callable[..., Generator] | None" = None) -> Report:
    """Draw every result that is not there yet; an interruption keeps those that are finished.

    `open_generator` takes the place of `Generator.open` where a base is open already.
    """
    from sdxl_mel.synthesis import session, variations

    opening = {**config.opened(), "keep_base": config.ab}
    if config.refine:
        opening |= {"refine": True, "refine_steps": config.refine_steps}
    lines = (
        read_prompts(config.prompts) if config.prompts else [PromptLine(prompt=config.prompt or config.schedule or "")]
    )
    draw: Callable[..., session.Generated] = variations.generate_ab if config.ab else session.generate
    drawn = draw(
        lambda: (open_generator or session.Generator.open)(**opening),
        Prompts(lines, config.num, config.seed, config.negative_prompt, config.schedule, config.prompt_to),
        Output(config.out, config.format, config.method, config.plot, config.overwrite),
        asked=config.asked(),
        length=Length(config.seconds, config.loop, config.mode, config.overlap, config.merge),
        best_of=config.best_of,
        clap=config.clap,
        batch=config.batch,
        settings=config.recorded(),
    )
    folder = config.out / "with" if config.ab else config.out
    return Report(folder=str(folder), results=drawn.entries, notes=drawn.notes, skipped=drawn.left_out)


def _joins(result: Entry) -> str:
    """Return how much the joins of a long piece stand out: about 0 for an ordinary moment, above 2 is heard."""
    known = [score for score in result.seam_scores if score is not None]
    parts = [f"seam z {sum(known) / len(known):+.2f}, worst {max(known):+.2f} of {len(known)} joins"] if known else []
    if result.junction is not None:
        parts.append(f"loop junction z {result.junction:+.2f}")
    return "".join(f"; {part}" for part in parts)

"""The stage `lora`: everything that is done with LoRA files but training and fusing them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError

if TYPE_CHECKING:
    from sdxl_mel.models.lora.combine import Outcome

EXAMPLES = """\
  sdxl-mel lora info lora.safetensors
  sdxl-mel lora convert lora.safetensors --to diffusers --out lora-diffusers.safetensors
  sdxl-mel lora compare a.safetensors b.safetensors
  sdxl-mel lora resize lora.safetensors --rank 8 --out small.safetensors
  sdxl-mel lora merge a.safetensors:0.7 b.safetensors:0.3 --out both.safetensors
  sdxl-mel lora extract sd_xl_base_1.0.safetensors tuned.safetensors --rank 32 --out lora.safetensors
"""
Action = Literal["convert", "info", "compare", "resize", "merge", "extract"]
WRITING = ("convert", "resize", "merge", "extract")
FILES = {"convert": 1, "info": 1, "compare": 2, "resize": 1, "extract": 2}
SHOWN = 5
ALL_SHOWN = 24


class Config(StageConfig):
    """Convert, describe, compare, resize, merge or extract LoRA files."""

    action: Annotated[Action, Show.POSITIONAL]
    """convert, info, compare, resize, merge or extract"""
    files: Annotated[tuple[str, ...], Show.POSITIONAL] = Field(min_length=1)
    """LoRA files; FILE:0.7 states a strength for merge; for extract a base and a tuned model"""
    out: Path | None = None
    """LoRA file to write"""
    to: Literal["kohya", "diffusers"] = "kohya"
    """names to write: kohya (ComfyUI, A1111, Civitai) or diffusers"""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """precision to write"""
    rank: int | None = Field(None, gt=0)
    """highest rank of resize, extract and an average"""
    how: Literal["sum", "average"] = "sum"
    """merge: sum adds the LoRAs (exact, their ranks add up), average takes their mean, cut to --rank"""
    layers: Literal["linear", "all"] = "linear"
    """extract: the Linear layers of attention and MLP, or every layer of the UNet"""
    one_alpha: bool = False
    """give all modules one alpha without changing what they do; diffusers needs it to read kohya's names rightly"""
    each: bool = False
    """list every module, not only the blocks"""
    alpha: Annotated[float | Literal["rank"] | None, Show.ADVANCED] = None
    """alpha of files that hold none: a number, or rank for a scale of 1"""
    configs: Annotated[Path | None, Show.ADVANCED] = None
    """diffusers folder with the configs of single-file models"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of extract's random projections"""


class Report(StageReport):
    """What was found or written; `kept` is the part of each module's energy that a lower rank keeps."""

    action: str
    lines: tuple[str, ...] = ()
    kept: Mapping[str, float] = {}
    each: bool = False
    out: Path | None = None

    def summary(self) -> str:
        """Return the findings, the kept energy, and what was written."""
        lines = [*self.lines]
        if self.kept:
            ordered = sorted(self.kept.items(), key=lambda item: item[1])
            shown = ordered if self.each or len(ordered) <= ALL_SHOWN else ordered[:SHOWN]
            lines.append(f"kept energy: mean {sum(self.kept.values()) / len(self.kept):.2%}, least {ordered[0][1]:.2%}")
            lines += [f"  {value:8.3%}  {name}" for name, value in shown]
        return "\n".join([*lines, *([str(self.out)] if self.out else [])])


def run(config: Config) -> Report:
    """Do what `config.action` says. Raises InputError for a wrong number of files or a missing --out or --rank."""
    import torch

    from sdxl_mel.models.lora.combine import remarks
    from sdxl_mel.models.lora.file import write_lora

    _check(config)
    outcome = _outcome(config)
    lines = outcome.lines
    if config.out is not None and outcome.lora is not None:
        lora = outcome.lora.with_one_alpha() if config.one_alpha else outcome.lora
        write_lora(config.out, lora, config.to, torch.float16 if config.dtype == "fp16" else torch.float32)
        lines = (*lines, *remarks(lora, config.to))
    return Report(action=config.action, lines=lines, kept=outcome.kept, each=config.each, out=config.out)


def _outcome(config: Config) -> "Outcome":
    from sdxl_mel.models.lora.combine import average_loras, convert_lora, resize_lora, sum_loras
    from sdxl_mel.models.lora.describe import compare_loras, describe_lora
    from sdxl_mel.models.lora.extract import extract_lora
    from sdxl_mel.models.lora.file import read_loras

    if config.action == "extract":
        assert config.rank is not None
        return extract_lora(
            *config.files, rank=config.rank, layers=config.layers, seed=config.seed, configs=config.configs
        )
    loras = read_loras(config.files, alpha=config.alpha)
    if config.action != "merge" and any(scale != 1 for _, _, scale in loras):
        raise InputError(f"lora {config.action}: takes no FILE:SCALE; only merge does")
    match config.action:
        case "convert":
            return convert_lora(loras[0])
        case "info":
            return describe_lora(loras[0], config.each)
        case "compare":
            return compare_loras(loras[0], loras[1], config.each)
        case "resize":
            assert config.rank is not None
            return resize_lora(loras[0], config.rank)
        case "merge":
            return sum_loras(loras) if config.how == "sum" else average_loras(loras, config.rank)


def _check(config: Config) -> None:
    wanted, given = FILES.get(config.action), len(config.files)
    if wanted is not None and given != wanted:
        raise InputError(f"lora {config.action}: takes {wanted} file{'s' * (wanted > 1)}, {given} were given")
    if config.action == "merge" and given < 2:
        raise InputError("lora merge: takes at least two files, one was given")
    if config.action in WRITING and config.out is None:
        raise InputError(f"lora {config.action}: say where to write with --out NAME.safetensors")
    if config.out is not None and config.out.exists():
        raise InputError(f"{config.out}: is there already; delete it or choose another --out")
    if config.out is not None and config.out.suffix != ".safetensors":
        raise InputError(f"{config.out}: a LoRA is written as NAME.safetensors; choose such a name")
    if config.action in ("resize", "extract") and config.rank is None:
        raise InputError(f"lora {config.action}: say the rank with --rank N")

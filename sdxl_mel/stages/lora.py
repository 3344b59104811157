"""`sdxl-mel lora`: all that is done with LoRA files but training and fusing them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

from pydantic import Field

from sdxl_mel.arguments import Action, Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.options import Dialect

if TYPE_CHECKING:
    from sdxl_mel.models.lora.scaled import ScaledLora

SHOWN = 5
ALL_SHOWN = 24


class Reading(StageConfig):
    """What every action that reads LoRA files takes."""

    alpha: Annotated[float | Literal["rank"] | None, Show.ADVANCED] = None
    """alpha of files that hold none, a number; none or rank = a scale of 1"""


class OneFile(Reading):
    """What every action on one LoRA file takes."""

    file: Annotated[str, Show.POSITIONAL]
    """LoRA file"""


class Writing(StageConfig):
    """What every action that writes a LoRA file takes."""

    out: Path
    """LoRA file to write"""
    to: Dialect = "kohya"
    """names to write: kohya (ComfyUI, A1111, Civitai) or diffusers"""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """precision to write"""
    one_alpha: bool = False
    """give all modules one alpha without changing what they do; diffusers needs it to read kohya's names rightly"""


class Listing(StageConfig):
    """What every action that tells something of each module takes."""

    each: bool = False
    """list every module, however many there are"""


class Convert(OneFile, Writing):
    """Write a LoRA with the names of another dialect."""


class Info(OneFile, Listing):
    """Print what a LoRA file holds and says of itself."""


class Compare(Reading, Listing):
    """Print how far the changes of two LoRAs are apart."""

    first: Annotated[str, Show.POSITIONAL]
    """LoRA file"""
    second: Annotated[str, Show.POSITIONAL]
    """LoRA file to compare with it"""


class Resize(OneFile, Listing, Writing):
    """Write the closest LoRA of a lower rank."""

    rank: int = Field(gt=0)
    """highest rank of a module"""


class Merge(Reading, Listing, Writing):
    """Write one LoRA that does what several do together."""

    files: Annotated[tuple[str, ...], Show.POSITIONAL] = Field(min_length=2)
    """LoRA files; FILE:0.7 states a scale"""
    how: Literal["sum", "average"] = "sum"
    """sum adds the LoRAs (exact, their ranks add up), average takes their mean, cut to --rank"""
    rank: int | None = Field(None, gt=0)
    """highest rank of a module of an average; none = the highest among the files"""


class Extract(Listing, Writing):
    """Write the best LoRA for the difference between a base and a model tuned from it."""

    base: Annotated[str, Show.POSITIONAL]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    tuned: Annotated[str, Show.POSITIONAL]
    """the model tuned from it"""
    rank: int = Field(gt=0)
    """highest rank of a module"""
    layers: Literal["linear", "all"] = "linear"
    """the Linear layers of attention and MLP, or every layer of the UNet"""
    configs: Annotated[Path | None, Show.ADVANCED] = None
    """diffusers folder with the configs of single-file models"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of the random projections"""


ACTIONS = {
    "convert": Action(
        Convert, "  sdxl-mel lora convert lora.safetensors --to diffusers --out lora-diffusers.safetensors"
    ),
    "info": Action(Info, "  sdxl-mel lora info lora.safetensors"),
    "compare": Action(Compare, "  sdxl-mel lora compare a.safetensors b.safetensors"),
    "resize": Action(Resize, "  sdxl-mel lora resize lora.safetensors --rank 8 --out small.safetensors"),
    "merge": Action(Merge, "  sdxl-mel lora merge a.safetensors:0.7 b.safetensors:0.3 --out both.safetensors"),
    "extract": Action(
        Extract,
        "  sdxl-mel lora extract sd_xl_base_1.0.safetensors tuned.safetensors --rank 32 --out lora.safetensors",
    ),
}
Config = Convert | Info | Compare | Resize | Merge | Extract


class Report(StageReport):
    """What was found or written; `kept` is the part of each module's energy that a lower rank keeps."""

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
    """Do the action of these settings. Raises InputError for an --out that is there already or is no .safetensors."""
    from sdxl_mel.models.lora import actions, extract, scaled

    if isinstance(config, Writing):
        _require_new(config.out)
    loras = scaled.read_loras(_files(config), alpha=config.alpha) if isinstance(config, Reading) else []
    if not isinstance(config, Merge):
        _require_unscaled(loras)
    match config:
        case Convert():
            (lora,) = loras
            lora.lora.require_low_rank(str(lora.path))
            outcome = actions.Outcome(lora.lora, (f"{lora.path.name}: {len(lora.lora.modules)} modules",))
        case Info():
            (lora,) = loras
            outcome = actions.describe_lora(lora, config.each)
        case Compare():
            first, second = loras
            outcome = actions.compare_loras(first, second, config.each)
        case Resize():
            (lora,) = loras
            outcome = actions.resize_lora(lora, config.rank)
        case Merge():
            outcome = actions.sum_loras(loras) if config.how == "sum" else actions.average_loras(loras, config.rank)
        case Extract():
            outcome = extract.extract_lora(
                config.base,
                config.tuned,
                rank=config.rank,
                layers=config.layers,
                seed=config.seed,
                configs=config.configs,
            )
        case _:
            assert_never(config)
    lines = (*outcome.lines, *scaled.notes_on(loras))
    if isinstance(config, Writing) and outcome.lora is not None:
        result = outcome.lora.with_one_alpha() if config.one_alpha else outcome.lora
        lines += actions.write_with_remarks(config.out, result, config.to, config.dtype)
    return Report(
        lines=lines,
        kept=outcome.kept,
        each=isinstance(config, Listing) and config.each,
        out=config.out if isinstance(config, Writing) else None,
        skipped=scaled.left_out_of(loras),
    )


def _files(config: Convert | Info | Compare | Resize | Merge) -> tuple[str, ...]:
    match config:
        case Compare():
            return config.first, config.second
        case Merge():
            return config.files
        case _:
            return (config.file,)


def _require_unscaled(loras: "list[ScaledLora]") -> None:
    for path, _, scale in loras:
        if scale != 1:
            raise InputError(f"{path}:{scale:g}: this action takes no FILE:SCALE; only merge does")


def _require_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out}: is there already; delete it or choose another --out")
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a LoRA is written as NAME.safetensors; choose such a name")

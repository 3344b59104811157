"""LoRAs made from LoRAs: under other names, cut to a lower rank, several made one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.family import DTYPES
from sdxl_mel.models.lora.file import Lora, ScaledLora, input_hashes, joint_header, write_lora
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.module import Change, Cut, concatenated, resized
from sdxl_mel.models.lora.names import Module
from sdxl_mel.options import Dialect, Precision
from sdxl_mel.record import Record


@dataclass(frozen=True)
class Outcome:
    """A LoRA to write, if any; lines to show; and the part of its energy that each module keeps."""

    lora: Lora | None = None
    lines: tuple[str, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)


def name_of(module: Module) -> str:
    """Return a module's name as people read it: unet.mid_block.attentions.0.proj_in."""
    return ".".join(module)


def outcome_of(cuts: Mapping[Module, Cut], header: LoraHeader, lines: Sequence[str]) -> Outcome:
    """Return the LoRA of cut modules."""
    kept = {name_of(key): cut.kept for key, cut in cuts.items()}
    return Outcome(Lora({key: cut.module for key, cut in cuts.items()}, header), tuple(lines), kept)


def derived_header(action: str, loras: Sequence[ScaledLora], **settings: JsonValue) -> LoraHeader:
    """Return the header of a LoRA made from others; its record holds theirs."""
    header = joint_header(loras) if len(loras) > 1 else loras[0].lora.header
    before: list[JsonValue] = [
        lora.header.record.model_dump(mode="json") for _, lora, _ in loras if lora.header.record is not None
    ]
    record = Record(
        stage=f"lora {action}",
        settings=settings | {"before": before},
        inputs=input_hashes(loras),
    )
    return replace(header, record=record)


def convert_lora(source: ScaledLora) -> Outcome:
    """Return the LoRA as it is, record included: only the names in the file change."""
    return Outcome(source.lora, (f"{source.path.name}: {len(source.lora.modules)} modules",))


def write_with_remarks(out: Path, lora: Lora, dialect: Dialect, precision: Precision) -> tuple[str, ...]:
    """Write a LoRA file; return what another program is known to make of such a file."""
    write_lora(out, lora, dialect, DTYPES[precision])
    alphas = {module.alpha for module in lora.modules.values()}
    dora = any(module.magnitude is not None for module in lora.modules.values())
    lines = []
    if dialect == "kohya" and len(alphas) > 1:
        lines.append(
            f"its modules have {len(alphas)} different alphas, which diffusers (0.42) reads wrongly under kohya's "
            "names; write --one-alpha or --to diffusers for it"
        )
    if dialect == "kohya" and dora:
        lines.append("a DoRA: diffusers (0.42) drops the magnitudes under kohya's names; write --to diffusers for it")
    return tuple(lines)


def resize_lora(source: ScaledLora, rank: int) -> Outcome:
    """Return the closest LoRA with at most `rank` everywhere."""
    cuts = {key: resized(module, rank) for key, module in source.lora.modules.items()}
    lines = (f"{source.path.name}: {len(cuts)} modules cut to rank {rank}",)
    return outcome_of(cuts, derived_header("resize", [source], rank=rank), lines)


def sum_loras(sources: Sequence[ScaledLora]) -> Outcome:
    """Return one LoRA that does exactly what all do together, each at its strength; ranks add up."""
    changes = _changes(sources)
    modules = {key: concatenated(group) for key, group in changes.items()}
    scales: list[JsonValue] = [scale for _, _, scale in sources]
    lora = Lora(modules, derived_header("merge", sources, how="sum", scale=scales))
    highest = max(module.rank for module in modules.values())
    return Outcome(lora, (f"{len(sources)} LoRAs in {len(modules)} modules of rank up to {highest}",))


def average_loras(sources: Sequence[ScaledLora], rank: int | None) -> Outcome:
    """Return the weighted mean of LoRAs, cut to `rank` (None = the highest among them)."""
    total = sum(scale for _, _, scale in sources)
    if total == 0:
        raise InputError("lora merge: the scales add up to 0, so there is no average; give other scales")
    size = rank or max(module.rank for _, lora, _ in sources for module in lora.modules.values())
    cuts = {
        key: resized(concatenated([Change(m, s / total) for m, s in group]), size)
        for key, group in _changes(sources).items()
    }
    scales: list[JsonValue] = [scale / total for _, _, scale in sources]
    header = derived_header("merge", sources, how="average", scale=scales, rank=size)
    return outcome_of(cuts, header, (f"the mean of {len(sources)} LoRAs in {len(cuts)} modules, cut to rank {size}",))


def _changes(sources: Sequence[ScaledLora]) -> dict[Module, list[Change]]:
    """Return each module's part in every LoRA. Raises InputError for a DoRA, MismatchError for different shapes."""
    changes: dict[Module, list[Change]] = defaultdict(list)
    for path, lora, scale in sources:
        lora.require_family(sources[0].lora.family, str(path), str(sources[0].path))
        for key, module in lora.modules.items():
            if module.magnitude is not None:
                raise InputError(f"{path}: a DoRA, whose magnitudes do not add up; fuse it into a base instead")
            known = changes[key]
            if known and known[0].module.weight_shape != module.weight_shape:
                raise MismatchError(
                    f"{path}: {name_of(key)} is for a weight of {module.weight_shape}, in {sources[0].path} of "
                    f"{known[0].module.weight_shape}; they are for different models"
                )
            known.append(Change(module, scale))
    return changes

"""A LoRA cut to a lower rank, and several made one."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import JsonValue

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.lora import algebra as lora_algebra
from sdxl_mel.models.lora.file import Lora
from sdxl_mel.models.lora.fusing import Change
from sdxl_mel.models.lora.lora_set import ScaledLora
from sdxl_mel.models.lora.names import Module
from sdxl_mel.models.lora.outcome import Outcome, derived_header, name_of


def resized(source: ScaledLora, rank: int) -> Outcome:
    """Return the closest LoRA with at most `rank` everywhere."""
    cuts = {key: lora_algebra.resized(module, rank) for key, module in source.lora.modules.items()}
    lora = Lora({key: cut.module for key, cut in cuts.items()}, derived_header("resize", [source], rank=rank))
    lines = (f"{source.path.name}: {len(cuts)} modules cut to rank {rank}",)
    return Outcome(lora, lines, {name_of(key): cut.kept for key, cut in cuts.items()})


def summed(sources: Sequence[ScaledLora]) -> Outcome:
    """Return one LoRA that does exactly what all do together, each at its strength; ranks add up."""
    changes = _changes(sources)
    modules = {key: lora_algebra.concatenated(group) for key, group in changes.items()}
    scales: list[JsonValue] = [scale for _, _, scale in sources]
    lora = Lora(modules, derived_header("merge", sources, how="sum", scale=scales))
    highest = max(module.rank for module in modules.values())
    return Outcome(lora, (f"{len(sources)} LoRAs in {len(modules)} modules of rank up to {highest}",))


def averaged(sources: Sequence[ScaledLora], rank: int | None) -> Outcome:
    """Return the weighted mean of LoRAs, cut to `rank` (None = the highest among them)."""
    total = sum(scale for _, _, scale in sources)
    if total == 0:
        raise InputError("lora merge: the scales add up to 0, so there is no average; give other scales")
    size = rank or max(module.rank for _, lora, _ in sources for module in lora.modules.values())
    cuts = {
        key: lora_algebra.resized(lora_algebra.concatenated([Change(m, s / total) for m, s in group]), size)
        for key, group in _changes(sources).items()
    }
    scales: list[JsonValue] = [scale / total for _, _, scale in sources]
    header = derived_header("merge", sources, how="average", scale=scales, rank=size)
    lines = (f"the mean of {len(sources)} LoRAs in {len(cuts)} modules, cut to rank {size}",)
    modules = {key: cut.module for key, cut in cuts.items()}
    return Outcome(Lora(modules, header), lines, {name_of(key): cut.kept for key, cut in cuts.items()})


def _changes(sources: Sequence[ScaledLora]) -> dict[Module, list[Change]]:
    """Return each module's part in every LoRA. Raises InputError for a DoRA, MismatchError for different shapes."""
    changes: dict[Module, list[Change]] = defaultdict(list)
    for path, lora, scale in sources:
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

"""What is done with whole LoRAs: telling, comparing, renaming, cutting to a lower rank, making one of several."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.models.family import ADAPTABLE, DTYPES
from sdxl_mel.models.lora.algebra import Cut, concatenated, inner, resized
from sdxl_mel.models.lora.file import Lora, write_lora
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.lora.module import LoraModule
from sdxl_mel.models.lora.names import Module
from sdxl_mel.models.lora.scaled import ScaledLora, input_hashes, joint_header
from sdxl_mel.options import Dialect, Precision
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import differences, name_of

UNET_ENDS = tuple(f"unet.{name}" for name in ("conv_in", "conv_out", "time_embedding.", "add_embedding."))
"""Where a UNet's layers start that kohya's scripts (networks/lora.py) give no LoRA: those outside its blocks."""


@dataclass(frozen=True)
class Outcome:
    """A LoRA to write, if any; lines to show; and the part of its energy that each module keeps."""

    lora: Lora | None = None
    lines: tuple[str, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)


def outcome_of(cuts: Mapping[Module, Cut], header: LoraHeader, lines: Sequence[str]) -> Outcome:
    """Return the LoRA of cut modules."""
    kept = {".".join(key): cut.kept for key, cut in cuts.items()}
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


def write_with_remarks(out: Path, lora: Lora, dialect: Dialect, precision: Precision) -> tuple[str, ...]:
    """Write a LoRA file; return what another program is known to make of such a file."""
    write_lora(out, lora, dialect, DTYPES[precision])
    return remarks(lora, dialect)


def remarks(lora: Lora, dialect: Dialect) -> tuple[str, ...]:
    """Return what other programs are known to make of a file of this LoRA in this dialect, and the cure."""
    if dialect == "diffusers":
        return ()
    alphas = {module.alpha for module in lora.modules.values()}
    dora = any(module.magnitude is not None for module in lora.modules.values())
    ends = [name for name in map(".".join, lora.modules) if name.startswith(UNET_ENDS)]
    lines = []
    if len(alphas) > 1:
        lines.append(
            f"its modules have {len(alphas)} different alphas, which diffusers (0.42) reads wrongly under kohya's "
            "names; write --one-alpha or --to diffusers for it"
        )
    if dora:
        lines.append(
            "a DoRA under kohya's names: LyCORIS reads it exactly, ComfyUI, Forge and A1111 draw with other weights, "
            "kohya's scripts and diffusers (0.42) drop the magnitudes; fuse it into its base for them, or write "
            "--to diffusers for diffusers"
        )
    if ends:
        lines.append(
            f"kohya's scripts ignore {len(ends)} of its modules, those outside the UNet's blocks ({', '.join(ends)}); "
            "ComfyUI and A1111 read them"
        )
    return tuple(lines)


def resize_lora(source: ScaledLora, rank: int) -> Outcome:
    """Return the closest LoRA with at most `rank` everywhere."""
    source.lora.require_low_rank(str(source.path))
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
        key: resized(concatenated([(module, scale / total) for module, scale in group]), size)
        for key, group in _changes(sources).items()
    }
    scales: list[JsonValue] = [scale / total for _, _, scale in sources]
    header = derived_header("merge", sources, how="average", scale=scales, rank=size)
    return outcome_of(cuts, header, (f"the mean of {len(sources)} LoRAs in {len(cuts)} modules, cut to rank {size}",))


def _changes(sources: Sequence[ScaledLora]) -> dict[Module, list[tuple[LoraModule, float]]]:
    """Return each module's part in every LoRA. Raises InputError for a DoRA, MismatchError for different shapes."""
    changes: dict[Module, list[tuple[LoraModule, float]]] = defaultdict(list)
    for path, lora, scale in sources:
        lora.require_low_rank(str(path))
        lora.require_family(sources[0].lora.family, str(path), str(sources[0].path))
        for key, module in lora.modules.items():
            if module.magnitude is not None:
                raise InputError(f"{path}: a DoRA, whose magnitudes do not add up; fuse it into a base instead")
            known = changes[key]
            if known and known[0][0].weight_shape != module.weight_shape:
                raise MismatchError(
                    f"{path}: {'.'.join(key)} is for a weight of {module.weight_shape}, in {sources[0].path} of "
                    f"{known[0][0].weight_shape}; they are for different models"
                )
            known.append((module, scale))
    return changes


def describe_lora(source: ScaledLora, each: bool) -> Outcome:
    """Return what the file holds and says of itself."""
    header, modules = source.lora.header, source.lora.modules
    parameters = sum(m.down.numel() + m.up.numel() for m in modules.values())
    lines = [f"{source.path.name}: {len(modules)} modules, {parameters:,} parameters"]
    for part in ADAPTABLE:
        own = source.lora.of(part)
        if own:
            lines.append(f"  {part}: {len(own)} modules, {_kinds(own.values())}")
    kinds = Counter(module.kind for module in source.lora.others.values())
    lines += [f"  {count} changes of the kind {kind}; fuse and generate use them" for kind, count in kinds.items()]
    spec = "none; made by another tool" if header.spec is None else name_of(header.spec) or header.spec.to_json()
    lines.append(f"  spec: {spec}")
    lines.append(f"  anchor: {header.anchor or 'none'}; clip skip {header.clip_skip}")
    lines += [f"  base {part}: {digest[:16]}" for part, digest in header.base.items()]
    if header.record is not None:
        lines.append(f"  made by: {header.record.toolkit}, {header.record.stage}")
    lines += [f"  {name}: {value}" for name, value in sorted(header.training.items())]
    if each:
        lines += [
            f"  {'.'.join(key)}: rank {m.rank}, alpha {m.alpha:g}, change norm {inner(m, m) ** 0.5:.3e}"
            for key, m in modules.items()
        ]
    return Outcome(lines=tuple(lines))


def compare_loras(one: ScaledLora, other: ScaledLora, each: bool) -> Outcome:
    """Return by block how far the second file's changes are from the first's, and their cosine."""
    for source in (one, other):
        source.lora.require_low_rank(str(source.path))
    ours, theirs = one.lora.modules, other.lora.modules
    lines = _header_differences(one, other)
    for name, missing in ((one.path.name, theirs.keys() - ours.keys()), (other.path.name, ours.keys() - theirs.keys())):
        if missing:
            lines.append(f"{name} lacks {len(missing)} modules, first {'.'.join(min(missing))}")
    groups: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for key in ours.keys() & theirs.keys():
        if ours[key].weight_shape != theirs[key].weight_shape:
            lines.append(
                f"{'.'.join(key)}: of different shapes, {ours[key].weight_shape} and {theirs[key].weight_shape}"
            )
            continue
        products = (inner(ours[key], ours[key]), inner(ours[key], theirs[key]), inner(theirs[key], theirs[key]))
        groups[".".join(key) if each else _block(key)].append(products)
    total = [products for members in groups.values() for products in members]
    scaled = sum(ours[key].magnitude is not None or theirs[key].magnitude is not None for key in ours.keys() & theirs)
    if scaled:
        lines.append(f"{scaled} modules have the magnitudes of a DoRA, which are not compared")
    lines += [_distance(block, members) for block, members in sorted(groups.items())]
    return Outcome(lines=(*lines, _distance("all", total)) if total else tuple(lines))


def _distance(name: str, products: list[tuple[float, float, float]]) -> str:
    """Return |A - B| / |A| and the cosine of two sets of changes, from their inner products."""
    aa, ab, bb = (sum(column) for column in zip(*products))
    distance = (max(aa - 2 * ab + bb, 0.0) / aa) ** 0.5 if aa > 0 else float("inf") if bb > 0 else 0.0
    cosine = ab / (aa * bb) ** 0.5 if aa > 0 and bb > 0 else 0.0
    return f"{name:<24} {len(products):5d} modules  difference {distance:9.3e}  cosine {cosine:+.6f}"


def _header_differences(one: ScaledLora, other: ScaledLora) -> list[str]:
    first, second = one.lora.header, other.lora.header
    lines = []
    if first.spec is not None and second.spec is not None:
        fields = differences(first.spec, second.spec)
        lines += [f"spec: {name} {a} against {b}" for name, (a, b) in fields.items()]
    pairs = (("anchor", first.anchor, second.anchor), ("clip skip", first.clip_skip, second.clip_skip))
    return lines + [f"{name}: {a!r} against {b!r}" for name, a, b in pairs if a != b]


def _block(key: Module) -> str:
    part, path = key
    return ".".join((part, *path.split(".")[:2])) if part == "unet" else part


def _kinds(modules: Iterable[LoraModule]) -> str:
    known = list(modules)
    ranks, alphas = sorted({m.rank for m in known}), sorted({m.alpha for m in known})
    kinds = [f"rank {_several(ranks)}", f"alpha {_several(alphas)}"]
    convolutions = sum(m.down.ndim == 4 for m in known)
    kinds += [f"{convolutions} convolutions"] if convolutions else []
    kinds += ["DoRA"] if any(m.magnitude is not None for m in known) else []
    return ", ".join([*kinds, str(known[0].down.dtype).removeprefix("torch.")])


def _several(values: list[int] | list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

"""What is in a LoRA file, and how far two are apart."""

from collections import defaultdict
from collections.abc import Iterable

from sdxl_mel.models.family import ADAPTABLE
from sdxl_mel.models.lora.combine import Outcome, name_of
from sdxl_mel.models.lora.file import ScaledLora
from sdxl_mel.models.lora.module import LoraModule, inner
from sdxl_mel.models.lora.names import Module
from sdxl_mel.sound.melspec import differences
from sdxl_mel.sound.melspec import name_of as spec_name


def describe_lora(source: ScaledLora, each: bool) -> Outcome:
    """Return what the file holds and says of itself."""
    header, modules = source.lora.header, source.lora.modules
    parameters = sum(m.down.numel() + m.up.numel() for m in modules.values())
    lines = [f"{source.path.name}: {len(modules)} modules, {parameters:,} parameters"]
    for part in ADAPTABLE:
        own = source.lora.of(part)
        if own:
            lines.append(f"  {part}: {len(own)} modules, {_kinds(own.values())}")
    spec = "none; made by another tool" if header.spec is None else spec_name(header.spec) or header.spec.to_json()
    lines.append(f"  spec: {spec}")
    lines.append(f"  anchor: {header.anchor or 'none'}; clip skip {header.clip_skip}")
    lines += [f"  base {part}: {digest[:16]}" for part, digest in header.base.items()]
    if header.record is not None:
        lines.append(f"  made by: {header.record.toolkit}, {header.record.stage}")
    lines += [f"  {name}: {value}" for name, value in sorted(header.training.items())]
    if each:
        lines += [
            f"  {name_of(key)}: rank {m.rank}, alpha {m.alpha:g}, change norm {inner(m, m) ** 0.5:.3e}"
            for key, m in modules.items()
        ]
    return Outcome(lines=tuple(lines))


def compare_loras(one: ScaledLora, other: ScaledLora, each: bool) -> Outcome:
    """Return by block how far the second file's changes are from the first's, and their cosine."""
    ours, theirs = one.lora.modules, other.lora.modules
    lines = _header_differences(one, other)
    for name, missing in ((one.path.name, theirs.keys() - ours.keys()), (other.path.name, ours.keys() - theirs.keys())):
        if missing:
            lines.append(f"{name} lacks {len(missing)} modules, first {name_of(min(missing))}")
    groups: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for key in ours.keys() & theirs.keys():
        if ours[key].weight_shape != theirs[key].weight_shape:
            lines.append(
                f"{name_of(key)}: of different shapes, {ours[key].weight_shape} and {theirs[key].weight_shape}"
            )
            continue
        products = (inner(ours[key], ours[key]), inner(ours[key], theirs[key]), inner(theirs[key], theirs[key]))
        groups[name_of(key) if each else _block(key)].append(products)
    total = [products for members in groups.values() for products in members]
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

"""LoRA files: every spelling of a LoRA read into one form, and written from it with kohya's names or diffusers'.

Every tensor of a file is matched to a module of one family or the file is refused by what it is.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.diffusion.samplers import Drawing, is_few_step
from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.tensors import TensorFile, TensorType, tensor_bytes, write_tensors
from sdxl_mel.models.families import FAMILIES, TITLES
from sdxl_mel.models.family import Family, Part
from sdxl_mel.models.layouts import Architecture, Param
from sdxl_mel.models.lora.assemble import Alpha, Group, adaptation, differences
from sdxl_mel.models.lora.foreign import EMBEDDING, refusal, some
from sdxl_mel.models.lora.header import (
    LAYERS_KEY,
    LoraHeader,
    family_said,
    from_metadata,
    kohya_metadata,
    to_metadata,
)
from sdxl_mel.models.lora.module import Adaptation, Change, FullModule, LoraModule
from sdxl_mel.models.lora.names import Key, Module, parse_key, rewritten, write_key
from sdxl_mel.models.lora.peft_config import METADATA_KEY, alphas_of, configs_of, metadata_of, parse_config
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.options import Dialect
from sdxl_mel.progress import log
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import require_equal

__all__ = ["Alpha", "Dialect", "Lora", "LoraHeader", "LoraModule", "Part", "read_lora", "write_lora"]

Stored = tuple[TensorFile, str]
"""A file and the name of a tensor in it."""
TEXT_READER = re.compile(
    r"attn2[._]to_[kv]\.((lora_down|lora_A|lora\.down|lora_linear_layer\.down)\.weight|hada_w1_b|diff)$"
)
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Lora:
    """The adapters of a model by (part, diffusers path), and what the file says of them.

    A text encoder's paths start with `text_model.`, whatever the installed transformers calls them. `others` are the
    changes of a file of another tool that have no low rank, or are of a bias or a norm, by the parameter they change.
    """

    modules: Mapping[Module, LoraModule]
    header: LoraHeader = field(default_factory=LoraHeader)
    others: Mapping[Param, FullModule] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """Return what kind of base it is for."""
        return self.header.architecture.family

    def require_family(self, family: Family, where: str, base: str) -> None:
        """Raise MismatchError unless this LoRA, called `where`, is for the family of a `base`."""
        if self.family is not family:
            raise MismatchError(
                f"{where}: a LoRA of {self.family.title}, {base} is {family.title}; give the base it was trained on or "
                "another of its kind"
            )

    def require_low_rank(self, where: str) -> None:
        """Raise InputError if there are changes that are no LoRA of a layer, which only fusing and drawing can use."""
        if self.others:
            kinds = ", ".join(sorted({module.kind for module in self.others.values()}))
            raise InputError(
                f"{where}: {len(self.others)} of its changes are no LoRA of a layer ({kinds}: "
                f"{some('.'.join(param) for param in self.others)}); fuse it into a base, then `lora extract`"
            )

    def changes(self) -> Iterator[tuple[Param, Adaptation]]:
        """Yield every parameter that is changed, and how."""
        for (part, path), module in self.modules.items():
            yield (part, f"{path}.weight"), module
        yield from self.others.items()

    def only(self, wanted: Callable[[Part, str], bool]) -> "Lora":
        """Return those changes alone whose part and path are `wanted`."""
        return replace(
            self,
            modules={key: module for key, module in self.modules.items() if wanted(*key)},
            others={param: module for param, module in self.others.items() if wanted(*param)},
        )

    def of(self, part: Part) -> dict[str, LoraModule]:
        """Return the adapters of one part by path."""
        return {path: module for (owner, path), module in self.modules.items() if owner == part}

    def with_one_alpha(self) -> "Lora":
        """Return the same LoRA with the commonest alpha everywhere.

        diffusers (0.42) reads a kohya file whose modules differ in alpha wrongly: most attention layers get the
        commonest alpha instead of their own. ComfyUI and A1111 read either.
        """
        alpha = Counter(module.alpha for module in self.modules.values()).most_common(1)[0][0]
        return replace(self, modules={key: module.with_alpha(alpha) for key, module in self.modules.items()})


def read_lora(path: Path, alpha: Alpha | None = None) -> Lora:
    """Read a LoRA file in any spelling, or a folder that diffusers or peft wrote.

    `alpha` is for files that hold none, whose scale is 1 otherwise, as kohya, ComfyUI and A1111 have it. Raises
    InputError for a file that is no LoRA of a known family, or with an unmatched or missing tensor or NaN; FormatError
    for a damaged one.
    """
    if path.is_dir():
        return _read_folder(path, alpha)
    file = TensorFile(path)
    header = from_metadata(file.metadata, str(path))
    tensors = {name: (file, name) for name in file.types}
    if LAYERS_KEY not in file.metadata:
        header = replace(header, architecture=_recognised(tensors, path, family_said(file.metadata)))
    modules, others = _assembled(tensors, header.architecture, configs_of(file.metadata, str(path)), alpha, path)
    return Lora(modules, header, others)


def write_lora(path: Path, lora: Lora, dialect: Dialect = "kohya", dtype: torch.dtype = torch.float32) -> None:
    """Write a LoRA file, whole or not at all; the same LoRA makes the same bytes.

    Alphas are kept in fp32. Raises InputError for an empty LoRA, a module that its family has not, or NaN.
    """
    lora.require_low_rank(str(path))
    if not lora.modules:
        raise InputError(f"{path}: there is no adapter to write")
    if dialect == "diffusers":
        # Programs that do not read peft's settings take the scale to be 1.
        lora = replace(
            lora, modules={key: module.with_alpha(float(module.rank)) for key, module in lora.modules.items()}
        )
    tensors = _tensors(lora, dialect, dtype)
    types = {name: TensorType(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    metadata = to_metadata(lora.header)
    if dialect == "kohya":
        metadata |= kohya_metadata(lora.header, lora.modules.values(), path.stem, _digest(tensors))
    else:
        metadata |= {"format": "pt", METADATA_KEY: metadata_of(lora.modules)}
    write_tensors(path, types, metadata, lambda name, out: out.copy_(tensors[name]))


def _tensors(lora: Lora, dialect: Dialect, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for (part, path), module in lora.modules.items():
        problem = module.problem()
        if problem:
            raise InputError(f"{part}.{path}: {problem}; it is not written")
        roles: Group = {"down": module.down.to(dtype), "up": module.up.to(dtype)}
        if dialect == "kohya":
            roles["alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
        if module.magnitude is not None:
            roles["magnitude"] = _magnitude(module, dialect, f"{part}.{path}").to(dtype)
        for role, tensor in roles.items():
            if not bool(tensor.isfinite().all()):
                raise InputError(f"{part}.{path}: {role} does not fit into {dtype}; write it with --dtype fp32")
            tensors[write_key(dialect, Key(part, path, role), lora.header.architecture)] = tensor
    return tensors


def _magnitude(module: LoraModule, dialect: Dialect, where: str) -> Tensor:
    """Return DoRA's magnitudes as LyCORIS keeps them, (out, 1[, 1, 1]), or as peft does, (out,) or (1, out, 1, 1)."""
    assert module.magnitude is not None
    flat = module.magnitude.flatten()
    ones = [1] * (module.down.ndim - 2)
    if dialect == "kohya":
        return flat.reshape(1, -1, *ones) if module.axis else flat.reshape(-1, 1, *ones)
    if module.axis:
        raise InputError(f"{where}: a DoRA by input channels has no form in diffusers' dialect; write --to kohya")
    return flat if module.down.ndim == 2 else flat.reshape(1, -1, *ones)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all names and tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensor_bytes(tensors[name]))
    return digest.hexdigest()


def _read_folder(folder: Path, alpha: Alpha | None) -> Lora:
    """Read what diffusers' save_lora_weights or peft's save_pretrained wrote."""
    if (folder / DIFFUSERS_FILE).is_file():
        return read_lora(folder / DIFFUSERS_FILE, alpha)
    found = [place for place in (folder, *sorted(folder.iterdir())) if (place / "adapter_config.json").is_file()]
    if not found:
        raise InputError(f"{folder}: neither {DIFFUSERS_FILE} nor adapter_config.json in it; give the LoRA's own file")
    tensors: dict[str, Stored] = {}
    configs: dict[Part, Mapping[str, Any]] = {}
    for place in found:
        part, configs[part] = parse_config(place)
        file = TensorFile(place / "adapter_model.safetensors")
        tensors |= {f"{part}.{name.removeprefix('base_model.model.')}": (file, name) for name in file.types}
    header = LoraHeader(architecture=_recognised(tensors, folder))
    modules, others = _assembled(tensors, header.architecture, configs, alpha, folder)
    return Lora(modules, header, others)


def _assembled(
    tensors: Mapping[str, Stored],
    architecture: Architecture,
    configs: Mapping[Part, Mapping[str, Any]],
    alpha: Alpha | None,
    path: Path,
) -> tuple[dict[Module, LoraModule], dict[Param, FullModule]]:
    """Return what these tensors change, and say what of them is not used or not known."""
    used = {name: stored for name, stored in tensors.items() if not EMBEDDING.fullmatch(name)}
    groups = _grouped(used, sorted(tensors), architecture, path)
    if len(used) < len(tensors):
        log(f"{path}: {some(tensors.keys() - used.keys())} are embeddings (textual inversions), which are not used")
    ranks = {key: group["down"].shape[0] for key, group in groups.items() if "down" in group and group["down"].ndim}
    stated = alphas_of(configs, ranks, str(path))
    modules: dict[Module, LoraModule] = {}
    others: dict[Param, FullModule] = {}
    guessed = 0
    for module, group in groups.items():
        where = f"{path}: {'.'.join(module)}"
        found, unknown = adaptation(group, stated.get(module), alpha, where)
        guessed += unknown
        if isinstance(found, LoraModule):
            modules[module] = found
        for kind, each in (*differences(group, where), ("weight", found)):
            param = module[0], f"{module[1]}.{kind}"
            if isinstance(each, FullModule) and others.setdefault(param, each) is not each:
                raise FormatError(f"{where}: two changes of its {kind} of which none is a LoRA; the file is damaged")
    if guessed:
        log(
            f"{path}: {guessed} of {len(groups)} modules hold no alpha; their scale is 1 (alpha = rank), as in kohya, "
            "ComfyUI and A1111; --alpha or FILE:SCALE states another"
        )
    return modules, others


def _recognised(tensors: Mapping[str, Stored], path: Path, said: Family | None = None) -> Architecture:
    """Return the architecture of a foreign LoRA: that which has a module for most of its tensors.

    Where several have, the width of the text that cross attention reads decides, then the family that its metadata
    `said`, then their order: the families, then `mini`, whose blocks hold one layer. Two families are told to the user.
    """
    width = _text_width(tensors)

    def misfit(architecture: Architecture) -> tuple[int, bool, bool]:
        unmatched = sum(parse_key(name, architecture) is None for name in tensors)
        return unmatched, architecture.family.text_width != width, architecture.family is not said

    chosen, *others = sorted((*map(Architecture, FAMILIES), Architecture(SDXL, 1)), key=misfit)
    equals = [other.family for other in others if misfit(other) == misfit(chosen)]
    rivals = [family.title for family in equals if family is not chosen.family]
    if rivals and misfit(chosen)[0] < len(tensors):
        log(f"{path}: fits {chosen.family.title} and {', '.join(rivals)}, and does not say which; taken for the former")
    return chosen


def _text_width(tensors: Mapping[str, Stored]) -> int | None:
    """Return the width of the text that the UNet reads, None for a LoRA without such a module."""
    for name, (file, stored) in tensors.items():
        shape = file.types[stored].shape
        if len(shape) == 2 and TEXT_READER.search(rewritten(name)):
            return shape[-1]
    return None


def _grouped(
    tensors: Mapping[str, Stored], whole: Sequence[str], architecture: Architecture, path: Path
) -> dict[Module, Group]:
    """Return the tensors by module and role; `whole` are the names of all that the file holds."""
    groups: dict[Module, Group] = {}
    unmatched = []
    for name in sorted(tensors):
        key = parse_key(name, architecture)
        if key is None:
            unmatched.append(name)
            continue
        group = groups.setdefault(key.module, {})
        if key.role in group:
            raise FormatError(f"{path}: two tensors are the {key.role} of {key.part}.{key.path}, one is {name}")
        group[key.role] = _read(*tensors[name], path)
    if unmatched or not groups:
        raise InputError(refusal(path, unmatched or whole, len(whole), architecture))
    width = _text_width(tensors)
    other = architecture.family.other_widths.get(width or 0)
    if other:
        raise InputError(f"{path}: a LoRA of {other} (its UNet reads text {width} wide); give one made for {TITLES}")
    return groups


def _read(file: TensorFile, name: str, path: Path) -> Tensor:
    tensor, dtype = file.read(name), file.types[name].dtype
    if not dtype.is_floating_point and tensor.numel() > 1:
        raise InputError(f"{path}: {name} holds {str(dtype).removeprefix('torch.')}; a LoRA is of floating point")
    # fp16 holds every number of either float8, with which torch does not compute.
    return tensor.to(torch.float16) if dtype.is_floating_point and dtype.itemsize == 1 else tensor.clone()


class ScaledLora(NamedTuple):
    """A LoRA, the file it came from, and its strength."""

    path: Path
    lora: Lora
    scale: float


def read_loras(files: Sequence[str], scales: Sequence[float] = (), alpha: Alpha | None = None) -> list[ScaledLora]:
    """Read LoRAs with strengths from FILE:0.8 or from `scales`; see `paired_scales`."""
    return [ScaledLora(path, read_lora(path, alpha), scale) for path, scale in paired_scales(files, scales)]


def changes_of(
    loras: Sequence[ScaledLora], shape_of: Callable[[Param], Sequence[int] | None], family: Family, base: str
) -> dict[Param, list[Change]]:
    """Return the changes of every parameter of a base, `shape_of` of which says its shape, or None where it has none.

    Raises MismatchError for a LoRA of another family, or with a change that the base has no such parameter for.
    """
    changes: dict[Param, list[Change]] = defaultdict(list)
    for path, lora, scale in loras:
        lora.require_family(family, str(path), base)
        wrong, total = [], 0
        for param, module in lora.changes():
            total += 1
            shape = shape_of(param)
            if shape is None or not module.fits(tuple(shape)):
                wanted = " x ".join(map(str, module.weight_shape if isinstance(module, LoraModule) else module.size))
                there = f"the base has {' x '.join(map(str, shape))}" if shape is not None else "not in the base"
                name = ".".join(param).removesuffix(".weight")
                wrong.append(f"{name} ({there if shape is None else f'for a weight of {wanted}, {there}'})")
            changes[param].append(Change(module, scale))
        if wrong:
            raise MismatchError(
                f"{path}: {len(wrong)} of {total} modules do not fit {base}: {some(wrong)}; give the base it was "
                "trained on or another of its kind"
            )
    return changes


def input_hashes(loras: Sequence[ScaledLora]) -> dict[str, str]:
    """Return the SHA-256 of every file of the LoRAs, for a record; the number keeps two of one name apart."""
    return {
        f"{number:04} {file.relative_to(path.parent).as_posix()}": sha256_file(file)
        for number, (path, _, _) in enumerate(loras, 1)
        for file in (sorted(path.rglob("*.safetensors")) if path.is_dir() else [path])
    }


def paired_scales(files: Sequence[str], scales: Sequence[float] = ()) -> list[tuple[Path, float]]:
    """Return each file and its strength: FILE:0.8, or one of `scales` for each file in the same order, or 1.

    Raises InputError when the counts differ, both ways are used, or a strength is not finite.
    """
    split = [_split(text) for text in files]
    if scales and any(scale is not None for _, scale in split):
        raise InputError(
            "a scale is given both as FILE:SCALE and as a setting (--scale, --lora-scale); use one of the two"
        )
    if scales and len(scales) != len(split):
        raise InputError(
            f"{len(scales)} --scale for {len(split)} --lora; give one for each in the same order, or none for 1"
        )
    chosen = list(scales) or [1.0 if scale is None else scale for _, scale in split]
    for (path, _), scale in zip(split, chosen):
        if not isfinite(scale):
            raise InputError(f"{path}: a scale of {scale} is no strength; give a number such as 0.8")
    return [(path, scale) for (path, _), scale in zip(split, chosen)]


def _split(text: str) -> tuple[Path, float | None]:
    name, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    try:
        return Path(name), float(number)
    except ValueError:
        return Path(text), None


def joint_header(loras: Sequence[ScaledLora]) -> LoraHeader:
    """Return the header of all LoRAs together: that of the first which knows its spec; an empty one of no LoRA.

    Raises MismatchError when two of them differ in spec or clip skip. Anchors may differ; the first one counts. How
    to draw is what the first of `drawings_asked` asks for.
    """
    drawing = reduce(Drawing.filled, (asked for _, asked in drawings_asked(loras)), Drawing())
    ours = [(str(path), lora.header) for path, lora, _ in loras if lora.header.spec is not None]
    if not ours:
        own = loras[0].lora.header if loras else LoraHeader()
        return LoraHeader(architecture=own.architecture, drawing=drawing, prediction=own.prediction)
    first_name, first = ours[0]
    for name, header in ours[1:]:
        assert header.spec is not None and first.spec is not None
        require_equal(first.spec, header.spec, first_name, name)
        if header.clip_skip != first.clip_skip:
            raise MismatchError(
                f"{first_name} was trained with clip skip {first.clip_skip}, {name} with {header.clip_skip}; "
                "they cannot share a text encoder"
            )
    return replace(first, training={}, record=None, drawing=drawing)


def say_other_prediction(loras: Sequence[ScaledLora], prediction: Prediction, base: str) -> None:
    """Say which LoRAs were trained on a base that predicts v, where this one predicts epsilon.

    The reverse is not said: many trainers call every LoRA's base an epsilon one.
    """
    for path, lora, _ in loras:
        if lora.header.prediction == "v_prediction" and prediction == "epsilon":
            log(
                f"{path}: trained on a base that predicts v, and {base} predicts epsilon: expect noise; give a base "
                "that predicts v (a single file says so by a tensor v_pred)"
            )


def drawings_asked(loras: Sequence[ScaledLora]) -> list[tuple[str, Drawing]]:
    """Return the file of each LoRA and how it asks to be drawn, from the first to be followed on.

    A few-step LoRA decides, whatever guidance was found good for another beside it.
    """
    asked = [(str(path), lora.header.drawing) for path, lora, _ in loras]
    return sorted(asked, key=lambda each: not is_few_step(each[1]))

"""LoRA files: every spelling of a LoRA read into one form, and written from it with kohya's names or diffusers'.

Every tensor of a file is matched to a module of one family or the file is refused by what it is.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.execution import one_thread
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
from sdxl_mel.models.lora.module import Adaptation, FullModule, LoraModule
from sdxl_mel.models.lora.names import Key, Module, parse_key, rewritten, write_key
from sdxl_mel.models.lora.peft_config import METADATA_KEY, alphas_of, configs_of, metadata_of, parse_config
from sdxl_mel.models.sdxl import SDXL
from sdxl_mel.options import Dialect
from sdxl_mel.progress import log

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
    `unused` says what else the file holds, `notes` what was taken for granted when it was read.
    """

    modules: Mapping[Module, LoraModule]
    header: LoraHeader = field(default_factory=LoraHeader)
    others: Mapping[Param, FullModule] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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


@one_thread()
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
    notes: tuple[str, ...] = ()
    if LAYERS_KEY not in file.metadata:
        architecture, notes = _recognised(tensors, family_said(file.metadata))
        header = replace(header, architecture=architecture)
    return _assembled(tensors, header, configs_of(file.metadata, str(path)), alpha, path, notes=notes)


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


@one_thread()
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
    architecture, notes = _recognised(tensors)
    return _assembled(tensors, LoraHeader(architecture=architecture), configs, alpha, folder, notes=notes)


def _assembled(
    tensors: Mapping[str, Stored],
    header: LoraHeader,
    configs: Mapping[Part, Mapping[str, Any]],
    alpha: Alpha | None,
    path: Path,
    *,
    notes: tuple[str, ...],
) -> Lora:
    """Return the LoRA of these tensors; what of them is not used or not known is logged too."""
    used = {name: stored for name, stored in tensors.items() if not EMBEDDING.fullmatch(name)}
    groups = _grouped(used, sorted(tensors), header.architecture, path)
    unused: tuple[str, ...] = ()
    if len(used) < len(tensors):
        unused = (f"{some(tensors.keys() - used.keys())} are embeddings (textual inversions), which are not used",)
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
        notes += (
            f"{guessed} of {len(groups)} modules hold no alpha; their scale is 1 (alpha = rank), as in kohya, ComfyUI "
            "and A1111; --alpha or FILE:SCALE states another",
        )
    for said in (*unused, *notes):
        log(f"{path}: {said}")
    return Lora(modules, header, others, unused, notes)


def _recognised(tensors: Mapping[str, Stored], said: Family | None = None) -> tuple[Architecture, tuple[str, ...]]:
    """Return the architecture of a foreign LoRA, and what is to be said of it.

    It is the one that has a module for most of its tensors. Where several have, the width of the text that cross
    attention reads decides, then the family that its metadata `said`, then their order: the families, then `mini`,
    whose blocks hold one layer. Two families are told to the user.
    """
    width = _text_width(tensors)

    def misfit(architecture: Architecture) -> tuple[int, bool, bool]:
        unmatched = sum(parse_key(name, architecture) is None for name in tensors)
        return unmatched, architecture.family.text_width != width, architecture.family is not said

    chosen, *others = sorted((*map(Architecture, FAMILIES), Architecture(SDXL, 1)), key=misfit)
    equals = [other.family for other in others if misfit(other) == misfit(chosen)]
    rivals = [family.title for family in equals if family is not chosen.family]
    if rivals and misfit(chosen)[0] < len(tensors):
        fits = f"{chosen.family.title} and {', '.join(rivals)}"
        return chosen, (f"fits {fits}, and does not say which; taken for the former",)
    return chosen, ()


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

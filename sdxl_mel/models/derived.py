"""A base with some of its parts replaced by smaller ones, written as a folder that every command takes as a base."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tensors import TensorType
from sdxl_mel.files.tokenizer import tokenizer_files
from sdxl_mel.models.base import Base
from sdxl_mel.models.checkpoint import Place
from sdxl_mel.models.checkpoint_writer import require_space, write_folder
from sdxl_mel.models.family import Part
from sdxl_mel.models.folder import json_bytes
from sdxl_mel.models.fuse import chosen_dtype
from sdxl_mel.models.header import header_files
from sdxl_mel.models.layouts import Param, canonical
from sdxl_mel.models.lora.header import LoraHeader


def write_derived_base(
    path: Path,
    base: Base,
    models: Mapping[Part, nn.Module],
    header: LoraHeader,
    tokenizers: Mapping[str, Any] | None = None,
) -> None:
    """Write `base` to a folder with `models` and `tokenizers` in place of its own; an older folder goes.

    New weights have the precision of the UNet that `base` holds, float16 for bfloat16; all other parts are copied as
    they are. Raises ResourceError where there is no room.
    """
    dtype = chosen_dtype(base.source.checkpoint(("unet",)), None, force_bf16=False)
    kept = [part for part in base.family.parts if part not in models]
    places: dict[Param, Place] = {}
    for part in kept:
        places |= base.source_of(part).checkpoint((part,)).places
    own: dict[Param, Tensor] = {}
    for part, model in models.items():
        own |= {(part, canonical(part, name)): tensor for name, tensor in model.state_dict().items()}
    # The names are diffusers' own, as those of a single file would be.
    source = replace(base.source.checkpoint(()), places=places, single=True)
    types = {param: source.type_of(param) for param in places}
    types |= {param: TensorType(dtype, tuple(tensor.shape)) for param, tensor in own.items()}
    require_space(path, types)

    def put(param: Param, out: Tensor) -> None:
        if param in own:
            out.copy_(own[param].detach())
            return
        out.copy_(source.read(param))
        source.forget(param)

    files = base.source.small_files()
    for part, model in models.items():
        files[f"{part}/config.json"] = json_bytes(config_of(model))
    for folder, tokenizer in (tokenizers or {}).items():
        files = {name: content for name, content in files.items() if not name.startswith(f"{folder}/")}
        files |= {f"{folder}/{name}": json_bytes(content) for name, content in tokenizer_files(tokenizer).items()}
    if path.is_dir():
        shutil.rmtree(path)
    write_folder(path, source, types, put, files | header_files(header))


def config_of(model: Any) -> dict[str, Any]:
    """Return the config of a model of diffusers or of transformers, as its folder holds it; it names no other place."""
    text: str = model.to_json_string() if hasattr(model, "to_json_string") else model.config.to_json_string()
    return {name: value for name, value in parse_json(text).items() if name != "_name_or_path"}

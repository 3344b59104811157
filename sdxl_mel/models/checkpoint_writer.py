"""Writing a whole base, tensor by tensor, as a diffusers folder or as a single file in the original layout."""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdxl_mel.errors import FormatError, ResourceError
from sdxl_mel.files.atomic import atomic_folder
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tensors import TensorType, write_tensors
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.family import Component, Part, weights_stem
from sdxl_mel.models.folder import INDEX_FILE, json_bytes
from sdxl_mel.models.layouts import Param, Stored

Types = Mapping[Param, TensorType]
Put = Callable[[Param, Tensor], object]
"""Puts a tensor into the memory it is given, which has its type and shape."""

SPARE_BYTES = 16 << 20
"""Headers, configs and tokenizers."""


def require_space(path: Path, types: Types) -> None:
    """Raise ResourceError unless the disk that `path` will be on can hold the tensors."""
    place = next(folder for folder in path.absolute().parents if folder.exists())
    needed = sum(kind.nbytes for kind in types.values()) + SPARE_BYTES
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ResourceError(
            f"{path}: needs {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free; "
            "free some or choose another --out"
        )


def write_single_file(
    path: Path,
    source: Checkpoint,
    types: Types,
    put: Put,
    metadata: Mapping[str, str],
    *,
    marks: Iterable[str] = (),
    beside: Sequence[Callable[[], object]] = (),
    final: Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Write a checkpoint as ComfyUI and A1111 load it; tensors that only a single file has come from the source.

    `marks` are names of empty tensors; see `models.scheduler`. `beside` and `final` are as in `write_tensors`.
    """
    layout = _single_layout(source, types)
    kinds = {name: _kind(params, types) for name, params in layout.items()}
    kinds |= {name: place.file.types[name] for name, place in source.rest.items()}
    for encoder in source.architecture.family.text_encoders:
        if encoder.table == "open_clip":
            scale = TensorType(types["unet", "conv_in.weight"].dtype, ())
            kinds.setdefault(f"{encoder.original}logit_scale", scale)
    for mark in marks:
        kinds.setdefault(mark, TensorType(torch.float32, (0,)))

    def assemble(name: str, out: Tensor) -> None:
        if name in layout:
            for (stored, param), piece in zip(layout[name], out.chunk(len(layout[name]))):
                put(param, _as_in_model(stored, piece))
        elif name in source.rest:
            out.copy_(source.rest[name].file.read(name))
        elif name.endswith("logit_scale"):
            # OpenCLIP's scale ends training at its limit, 100; no image is ever compared here.
            out.fill_(math.log(100.0))

    own = source.latents_metadata
    known_last = None if final is None else lambda: {**final(), **own}
    write_tensors(path, kinds, {**metadata, **own}, assemble, beside=beside, final=known_last)


def write_folder(
    path: Path,
    source: Checkpoint,
    types: Types,
    put: Put,
    small_files: Mapping[str, bytes],
    *,
    beside: Mapping[Part, Callable[[], object]] | None = None,
    final: Callable[[], Mapping[str, bytes]] = dict,
) -> None:
    """Write a diffusers folder; `small_files` are all others by name. Its model_index.json is written last.

    `beside` is long work that is done while a part is written, `final` returns more small files when all is done.
    """
    with atomic_folder(path) as folder:
        for component in source.architecture.family.components:
            work = [beside[component.part]] if beside else []
            _write_part(folder / component.part, component, source, types, put, beside=work)
        for name, content in {**small_files, **final()}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            if name != INDEX_FILE:
                (folder / name).write_bytes(content)
        (folder / INDEX_FILE).write_bytes(_index(small_files[INDEX_FILE], folder))


def _index(content: bytes, folder: Path) -> bytes:
    """Return a pipeline's model_index.json without the models that are not in `folder`, as a safety checker."""
    index = parse_json(content)
    absent = [
        name for name, kind in index.items() if isinstance(kind, list) and any(kind) and not (folder / name).is_dir()
    ]
    if not absent:
        return content
    return json_bytes(index | {name: [None, None] for name in absent} | {"requires_safety_checker": False})


def _write_part(
    folder: Path,
    component: Component,
    source: Checkpoint,
    types: Types,
    put: Put,
    *,
    beside: Sequence[Callable[[], object]],
) -> None:
    own = [param for param in types if param[0] == component.part]
    # A source folder's names are kept. Every version of transformers loads `text_model.`; only those that dropped it
    # from CLIPTextModel load without.
    params = {param[1] if source.single else source.places[param].name: param for param in own}
    kinds = {name: types[param] for name, param in params.items()}
    file = folder / f"{weights_stem(component.part)}.safetensors"
    metadata = {"format": "pt"} | (source.latents_metadata if component.part == "vae" else {})
    write_tensors(file, kinds, metadata, lambda name, out: put(params[name], out), beside=beside)


def _single_layout(source: Checkpoint, types: Types) -> dict[str, list[tuple[Stored, Param]]]:
    """Return what makes up each tensor of a single file, thirds in order."""
    layout: dict[str, list[tuple[Stored, Param]]] = {}
    for param in types:
        stored = source.architecture.stored_as(param)
        if stored is None:
            title = source.architecture.family.title
            raise FormatError(
                f"{source.path}: {'.'.join(param)} has no place in a checkpoint of {title}; write a folder instead"
            )
        layout.setdefault(stored.name, []).append((stored, param))
    for pieces in layout.values():
        pieces.sort()
    return layout


def _kind(pieces: list[tuple[Stored, Param]], types: Types) -> TensorType:
    stored, param = pieces[0]
    dtype, shape = types[param]
    match stored.form:
        case "third":
            shape = (3 * shape[0], *shape[1:])
        case "transposed":
            shape = shape[::-1]
        case "convolution":
            shape = (*shape, 1, 1)
    return TensorType(dtype, shape)


def _as_in_model(stored: Stored, piece: Tensor) -> Tensor:
    """Return a view of memory in a single file that has the shape of the model's own tensor."""
    match stored.form:
        case "transposed":
            return piece.T
        case "convolution":
            return piece[:, :, 0, 0]
        case _:
            return piece

"""An SDXL's tensors under one naming, read one at a time from a diffusers folder or a single file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sdxl_mel.errors import FormatError
from sdxl_mel.files.tensors import TensorFile, TensorType
from sdxl_mel.models.folder import Folder
from sdxl_mel.models.layouts import (
    ALL_PARTS,
    PREFIXES,
    SDXL_LAYERS_PER_BLOCK,
    AnyPart,
    Form,
    canonical,
    kept_in,
    stored_as,
)
from sdxl_mel.models.single_file import NOT_WEIGHTS

Param = tuple[AnyPart, str]
"""A part and diffusers' name of a tensor in it, with `text_model.` in the text encoders."""

EMA = "model_ema."
"""A second, averaged UNet in some training checkpoints: stale once the first is changed, so it is left out."""
DOWNSAMPLER = re.compile(rf"{re.escape(PREFIXES['unet'])}input_blocks\.(\d+)\.0\.op\.weight")


class Place(NamedTuple):
    """Where a tensor is kept and in which form."""

    file: TensorFile
    name: str
    form: Form = "same"
    third: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a base; `rest` are those of a single file that diffusers' models have not (schedules, scales).

    `single` says which kind it is; `layers_per_block` numbers the blocks of the original layout.
    """

    path: Path
    places: dict[Param, Place]
    rest: dict[str, Place]
    single: bool
    layers_per_block: int

    def type_of(self, param: Param) -> TensorType:
        """Return a tensor's kind before it is read."""
        return _type_of(self.places[param])

    def read(self, param: Param) -> Tensor:
        """Return a tensor as diffusers has it: a view of the file's memory map where that is possible."""
        place = self.places[param]
        whole = place.file.read(place.name)
        match place.form:
            case "third":
                size = len(whole) // 3
                return whole[place.third * size : (place.third + 1) * size]
            case "transposed":
                return whole.T
            case "convolution":
                return whole.flatten(1)
            case _:
                return whole

    def forget(self, param: Param) -> None:
        """Let a tensor's pages go; it is read again when it is asked for."""
        place = self.places[param]
        place.file.forget(place.name)


def open_folder(folder: Folder) -> Checkpoint:
    """Open the weights of all parts of a diffusers folder, sharded or not."""
    places: dict[Param, Place] = {}
    for part in ALL_PARTS:
        for path in folder.weights(part):
            file = TensorFile(path)
            places |= {(part, canonical(part, name)): Place(file, name) for name in file.types if _is_weight(name)}
    config = folder.config("unet") or {}
    return Checkpoint(folder.path, places, {}, False, config.get("layers_per_block", SDXL_LAYERS_PER_BLOCK))


def open_single_file(path: Path) -> Checkpoint:
    """Open a checkpoint in the original layout. Raises FormatError for a tensor inside a part that SDXL has not."""
    file = TensorFile(path)
    layers = _layers_per_block(file)
    places: dict[Param, Place] = {}
    rest = {}
    for name in file.types:
        params = kept_in(name, layers) if _is_weight(name) else None
        if params is None and _is_weight(name) and name.startswith(tuple(PREFIXES.values())):
            raise FormatError(f"{path}: SDXL has no tensor {name}; give an SDXL checkpoint in the original layout")
        if params is None and not name.startswith(EMA):
            rest[name] = Place(file, name)
        for part, param in params or ():
            stored = stored_as(part, param, layers)
            assert stored is not None and stored.name == name, (stored, name)
            places[part, param] = Place(file, name, _form(stored.form, file.types[name]), stored.third)
    return Checkpoint(path, places, rest, True, layers)


def _form(form: Form, kind: TensorType) -> Form:
    """Return the form, a VAE's attention being read as it is where a tool already stored matrices."""
    return "same" if form == "convolution" and len(kind.shape) == 2 else form


def _is_weight(name: str) -> bool:
    return not name.endswith(NOT_WEIGHTS)


def _layers_per_block(file: TensorFile) -> int:
    """Return the UNet's layers per block: the first downsampler follows them and conv_in."""
    found = [int(match[1]) for name in file.types if (match := DOWNSAMPLER.fullmatch(name))]
    return min(found) - 1 if found else SDXL_LAYERS_PER_BLOCK


def _type_of(place: Place) -> TensorType:
    dtype, shape = place.file.types[place.name]
    match place.form:
        case "third":
            return TensorType(dtype, (shape[0] // 3, *shape[1:]))
        case "transposed":
            return TensorType(dtype, shape[::-1])
        case "convolution":
            return TensorType(dtype, shape[:2])
        case _:
            return TensorType(dtype, shape)

"""The tensors of a base under one naming, read one at a time from a diffusers folder or a single file."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.tensors import TensorFile, TensorType, tensor_bytes
from sdxl_mel.models.families import family_of_file
from sdxl_mel.models.family import PARTS, UNET, VAE, Family, Part
from sdxl_mel.models.layouts import LAYERS_PER_BLOCK, Architecture, Form, Param, canonical, without_text_model

NOT_WEIGHTS = ("position_ids", "logit_scale")
"""In files of the original layout, and no tensors of diffusers' models."""
EMA = "model_ema."
"""A second, averaged UNet in some training checkpoints: stale once the first is changed, so it is left out."""
TRAINING_LEFT = re.compile(rf"({re.escape(VAE.original)}|vae\.)?(loss|model_ema)\.|.*\.num_batches_tracked")
"""Of how a VAE was trained, its discriminator or its average beside it: no part of a model."""
SCALES = re.compile(r"(.*\.)?(scaled_fp8|scale_input|scale_weight)")
"""Of ComfyUI's scaled fp8: a mark, what inputs of a product in fp8 are divided by, what a weight is multiplied by."""
SCALED_DTYPE = torch.float16
"""Of a weight that was multiplied by its scale: it has more digits than the weight has in float8."""
LATENTS_KEY, ENCODER_KEY = "sdxl_mel_vae.latents", "sdxl_mel_vae.encoder"
"""In the file of a VAE whose decoder alone was trained: the identity of the VAE whose latents it decodes, and the hash
of the encoder that makes them."""
ENCODER = ("encoder.", "quant_conv.")
"""What of a VAE decides latents."""
DOWNSAMPLER = re.compile(rf"{re.escape(UNET.original)}input_blocks\.(\d+)\.0\.op\.weight")


class Place(NamedTuple):
    """Where a tensor is kept and in which form; `scale` is the tensor by which it is to be multiplied, if any."""

    file: TensorFile
    name: str
    form: Form = "same"
    third: int = 0
    scale: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a base; `rest` are those of a single file that diffusers' models have not (schedules, scales).

    `single` says which kind it is.
    """

    path: Path
    architecture: Architecture
    places: dict[Param, Place]
    rest: dict[str, Place]
    single: bool

    def type_of(self, param: Param) -> TensorType:
        """Return a tensor's kind before it is read."""
        place = self.places[param]
        dtype, shape = place.file.types[place.name]
        match place.form:
            case "third":
                shape = (shape[0] // 3, *shape[1:])
            case "transposed":
                shape = shape[::-1]
            case "convolution":
                shape = shape[:2]
        return TensorType(SCALED_DTYPE if place.scale else dtype, shape)

    def read(self, param: Param) -> Tensor:
        """Return a tensor as diffusers has it: a view of the file's memory map where that is possible."""
        place = self.places[param]
        whole = place.file.read(place.name)
        if place.scale:
            whole = (whole.float() * place.file.read(place.scale).float()).to(SCALED_DTYPE)
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

    def identity(self, part: Part) -> str:
        """Return the SHA-256 of the stored weights of one part: names in order, kinds, shapes and bytes.

        The same for a folder and a single file: names are those of diffusers, without the `text_model.` that comes and
        goes between versions of transformers.
        """
        own = [(param, place) for param, place in self.places.items() if param[0] == part]
        return self._hash({without_text_model(param[1] if self.single else place.name): param for param, place in own})

    @property
    def latents_identity(self) -> str:
        """Return the identity of the VAE that made the latents which this one makes: its own, or the one it names.

        A VAE whose decoder alone was trained names one, and is believed as long as its encoder has the stated hash.
        """
        stated = self.latents_metadata
        same = bool(stated) and stated[ENCODER_KEY] == self.encoder_identity
        return stated[LATENTS_KEY] if same else self.identity("vae")

    @property
    def encoder_identity(self) -> str:
        """Return the SHA-256 of what of the VAE decides latents."""
        return self._hash({name: (part, name) for part, name in self.places if name.startswith(ENCODER)})

    @property
    def latents_metadata(self) -> dict[str, str]:
        """Return what the file of the VAE says of latents, for a file that it is copied to; empty for most."""
        file = next((place.file for (part, _), place in self.places.items() if part == "vae"), None)
        keys = (LATENTS_KEY, ENCODER_KEY)
        return {key: file.metadata[key] for key in keys} if file and file.metadata.keys() >= set(keys) else {}

    def _hash(self, named: Mapping[str, Param]) -> str:
        digest = hashlib.sha256()
        for name, param in sorted(named.items()):
            tensor = self.read(param)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
            self.forget(param)
        return digest.hexdigest()


def open_folder(
    path: Path, weights: Mapping[Part, Iterable[Path]], family: Family, layers_per_block: int = LAYERS_PER_BLOCK
) -> Checkpoint:
    """Open the weight files of a diffusers folder by part, sharded or not."""
    places: dict[Param, Place] = {}
    for part, files in weights.items():
        for file in map(TensorFile, files):
            places |= {(part, canonical(part, name)): Place(file, name) for name in file.types if _is_weight(name)}
    return Checkpoint(path, Architecture(family, layers_per_block), places, {}, False)


def open_single_file(path: Path, parts: Sequence[Part] = PARTS) -> Checkpoint:
    """Open the tensors of `parts` in a checkpoint of the original layout.

    Raises InputError for a file of no known family, FormatError for a tensor inside a part that its family has not.
    """
    file = TensorFile(path)
    family = family_of_file({name: kind.shape for name, kind in file.types.items()}, path)
    architecture = Architecture(family, _layers_per_block(file))
    prefixes = {component.original: component.part for component in family.components}
    inside: list[str] = []
    rest: dict[str, Place] = {}
    for name in file.types:
        if SCALES.fullmatch(name):
            continue
        part = next((part for prefix, part in prefixes.items() if name.startswith(prefix)), None)
        if part is not None and _is_weight(name) and not TRAINING_LEFT.match(name):
            inside += [name] if part in parts else []
        elif not name.startswith(EMA):
            rest[name] = Place(file, name)
    return Checkpoint(path, architecture, _places(file, inside, "", architecture), rest, True)


def open_vae_file(path: Path, family: Family) -> Checkpoint:
    """Open a VAE alone, in the original layout with or without its prefix, or in diffusers' layout.

    Raises InputError for a file without one, FormatError for a tensor that is none of a VAE's.
    """
    file = TensorFile(path)
    prefix = next((known for known in (VAE.original, "vae.") if any(name.startswith(known) for name in file.types)), "")
    names = [name for name in file.types if name.startswith(prefix) and not TRAINING_LEFT.match(name)]
    if not any(name.startswith(f"{prefix}encoder.conv_in") for name in names):
        raise InputError(f"{path}: holds no VAE (no encoder.conv_in); give a VAE's folder or file")
    architecture = Architecture(family)
    if any(name.startswith(f"{prefix}encoder.down_blocks.") for name in names):
        places: dict[Param, Place] = {
            ("vae", canonical("vae", name.removeprefix(prefix))): Place(file, name) for name in names
        }
    else:
        places = _places(file, names, prefix, architecture, VAE.original)
    return Checkpoint(path, architecture, places, {}, True)


def _places(
    file: TensorFile, names: Iterable[str], prefix: str, architecture: Architecture, instead: str = ""
) -> dict[Param, Place]:
    """Return where each tensor of a single file lies; `instead` stands for the file's own `prefix`."""
    places: dict[Param, Place] = {}
    for name in names:
        params = architecture.kept_in(instead + name.removeprefix(prefix))
        if not params:
            raise FormatError(
                f"{file.path}: {architecture.family.title} has no tensor {name}; give a checkpoint of it in the "
                "original layout"
            )
        for param in params:
            stored = architecture.stored_as(param)
            assert stored is not None, param
            # A tool may have stored the matrices of a VAE's attention already, or a Linear's weight under its own name.
            matrix = stored.form == "convolution" and len(file.types[name].shape) == 2
            linear = stored.form == "transposed" and name.endswith(".weight")
            form = "same" if matrix or linear else stored.form
            places[param] = Place(file, name, form, stored.third, _scale_of(name, file))
    return places


def _scale_of(name: str, file: TensorFile) -> str | None:
    """Return the tensor that holds the one scale of a weight, None for most. Raises FormatError for several scales."""
    scale = f"{name.removesuffix('weight')}scale_weight"
    if scale not in file.types:
        return None
    if file.types[scale].shape not in ((), (1,)):
        raise FormatError(f"{file.path}: {scale} has the shape {file.types[scale].shape}, expected one number")
    return scale


def _is_weight(name: str) -> bool:
    return not name.endswith(NOT_WEIGHTS)


def _layers_per_block(file: TensorFile) -> int:
    """Return the UNet's layers per block: the first downsampler follows them and conv_in."""
    found = [int(match[1]) for name in file.types if (match := DOWNSAMPLER.fullmatch(name))]
    return min(found) - 1 if found else LAYERS_PER_BLOCK

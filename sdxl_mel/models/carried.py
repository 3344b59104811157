"""A model that a base carries beside its parts, in a folder of its own: a small decoder, a refiner.

NAME/config.json                               its class, and what an empty one is made of
NAME/diffusion_pytorch_model.safetensors       its weights
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

from sdxl_mel.errors import FormatError
from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tensors import TensorFile, TensorType, write_tensors
from sdxl_mel.models.folder import json_bytes, read_json
from sdxl_mel.record import sha256_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


class CarriedModel(ModelMixin, ConfigMixin):
    """A model whose config says all that an empty one is made of."""


Kind = TypeVar("Kind", bound=CarriedModel)


def write_carried(folder: Path, model: CarriedModel, dtype: torch.dtype = torch.float16) -> None:
    """Write a model to a folder, its config and its weights in `dtype`; an older one is replaced."""
    write_weights(folder / WEIGHTS, model, dtype)
    write_bytes(folder / "config.json", json_bytes({"_class_name": type(model).__name__, **own_config(model)}))


def write_weights(path: Path, model: CarriedModel, dtype: torch.dtype) -> None:
    """Write the weights of a model to one file."""
    state = model.state_dict()
    types = {name: TensorType(dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    write_tensors(path, types, {"format": "pt"}, lambda name, out: out.copy_(state[name]))


def own_config(model: CarriedModel) -> dict[str, Any]:
    """Return what makes an empty model of this shape."""
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    return dict(parse_json(json.dumps(config)))


def read_carried(folder: Path, name: str, kind: type[Kind], called: str) -> Kind | None:
    """Return the model in the folder `name` of a base, or in a folder of its own; None where there is none.

    Float32, frozen. Raises FormatError for a damaged one, which is `called` so.
    """
    place = place_of(folder, name)
    config = read_json(place / "config.json") or {}
    if config.get("_class_name") != kind.__name__:
        return None
    try:
        model = kind(**{name: value for name, value in config.items() if not name.startswith("_")})
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise FormatError(f"{place}: no {called} can be made of its config ({error}); copy it again") from error
    file = TensorFile(place / WEIGHTS)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | file.types.keys() if not _fits(wanted, file, name))
    if wrong:
        raise FormatError(
            f"{place}: {len(wrong)} tensors do not match its config.json, first: {wrong[0]}; copy it again"
        )
    model.load_state_dict({name: file.read(name).float() for name in wanted})
    return model.requires_grad_(False).eval()


def carried_hash(folder: Path, name: str) -> str:
    """Return the SHA-256 of the weights of the model that `read_carried` reads."""
    return sha256_file(place_of(folder, name) / WEIGHTS)


def place_of(folder: Path, name: str) -> Path:
    """Return the folder of a model that a base carries; it may be the folder itself."""
    return folder / name if (folder / name).is_dir() else folder


def _fits(wanted: dict[str, tuple[int, ...]], file: TensorFile, name: str) -> bool:
    return name in wanted and name in file.types and file.types[name].shape == wanted[name]

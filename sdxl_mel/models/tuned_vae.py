"""A VAE whose decoder was trained, written beside an encoder that stays bit for bit, so that all latents stay valid.

Both files say whose latents the decoder decodes (`Checkpoint.latents_identity`): caches of the VAE that it was made
from are not stale beside it.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.files.tensors import TensorType, write_tensors
from sdxl_mel.models.checkpoint import ENCODER, ENCODER_KEY, LATENTS_KEY, Checkpoint
from sdxl_mel.models.derived import config_of
from sdxl_mel.models.family import VAE, weights_stem
from sdxl_mel.models.folder import json_bytes
from sdxl_mel.models.layouts import Param, canonical


def write_vae_folder(folder: Path, source: Checkpoint, vae: Any) -> None:
    """Write a VAE as diffusers loads it: the encoder of `source` as it is stored there, the decoder of `vae`.

    Tensors have the precision that they have in `source`.
    """
    stored, own = _types(source), _decoder(vae)
    names = {param[1]: param for param in stored}
    file = folder / f"{weights_stem('vae')}.safetensors"
    write_tensors(
        file,
        {name: stored[param] for name, param in names.items()},
        {"format": "pt", **_latents(source)},
        lambda name, out: out.copy_(_tensor(source, own, names[name])),
    )
    write_bytes(folder / "config.json", json_bytes(config_of(vae)))


def write_vae_file(path: Path, source: Checkpoint, vae: Any) -> None:
    """Write the same VAE as one file in the original layout, as ComfyUI and A1111 load it."""
    stored, own = _types(source), _decoder(vae)
    places = {param: source.architecture.stored_as(param) for param in stored}
    names = {place.name.removeprefix(VAE.original): param for param, place in places.items() if place}
    matrices = {param for param, place in places.items() if place and place.form == "convolution"}
    types = {
        name: TensorType(stored[param].dtype, stored[param].shape + (1, 1) * (param in matrices))
        for name, param in names.items()
    }

    def put(name: str, out: Tensor) -> None:
        out.copy_(_tensor(source, own, names[name]).reshape(out.shape))

    write_tensors(path, types, {"format": "pt", **_latents(source)}, put)


def _types(source: Checkpoint) -> dict[Param, TensorType]:
    return {param: source.type_of(param) for param in source.places if param[0] == "vae"}


def _decoder(vae: Any) -> dict[Param, Tensor]:
    named = ((canonical("vae", name), tensor) for name, tensor in vae.state_dict().items())
    return {("vae", name): tensor.detach() for name, tensor in named if not name.startswith(ENCODER)}


def _tensor(source: Checkpoint, own: dict[Param, Tensor], param: Param) -> Tensor:
    return own[param] if param in own else source.read(param)


def _latents(source: Checkpoint) -> dict[str, str]:
    return {LATENTS_KEY: source.latents_identity, ENCODER_KEY: source.encoder_identity}

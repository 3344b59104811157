"""A base model, or a VAE, as one .safetensors file; its configs are in a folder, as the file holds none."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import CLIPTextConfig

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.tensors import TensorFile
from sdxl_mel.models.checkpoint import Checkpoint, open_single_file, open_vae_file
from sdxl_mel.models.families import NEEDED
from sdxl_mel.models.family import TEXT_ENCODERS, Config, Family, Part
from sdxl_mel.models.folder import Folder, model_class, quiet_libraries
from sdxl_mel.models.layouts import canonical
from sdxl_mel.sound.melspec import MelSpec

SPEC_KEY = "melspec"


def spec_of_file(path: Path) -> MelSpec | None:
    """Return the spec in a file's header, if there is one."""
    text = TensorFile(path).metadata.get(SPEC_KEY)
    return MelSpec.from_json(text, str(path)) if text else None


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint of all parts in the original layout; `configs` is a diffusers folder that may hold no weights."""

    path: Path
    configs: Folder

    @property
    def family(self) -> Family:
        """Return the family of its models."""
        return self.configs.family

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in the file's header, else that of the configs."""
        return spec_of_file(self.path) or self.configs.spec

    def require_parts(self, parts: Sequence[Part]) -> "SingleFile":
        """Return itself; raises InputError that lists what the file or its configs lack of `parts`."""
        names = TensorFile(self.path).types
        for part in parts:
            prefix = self.family.component(part).original
            if not any(name.startswith(prefix) for name in names):
                raise InputError(f"{self.path}: lacks the {part} (no {prefix}*); {NEEDED}")
            if self.configs.config(part) is None:
                raise InputError(f"{self.configs.path}: lacks {part}/config.json, which {self.path.name} needs")
        return self

    def config(self, part: Part) -> Config | None:
        """Return the config of one part."""
        return self.configs.config(part)

    def load(self, part: Part, dtype: torch.dtype) -> Any:
        """Return one model in `dtype`; raises FormatError for damaged weights or any that do not match the config."""
        return built(open_single_file(self.path, (part,)), part, self.config(part) or {}, dtype)

    def identity(self, part: Part) -> str:
        """Return the SHA-256 of the stored weights of one part, under diffusers' names."""
        return open_single_file(self.path, (part,)).identity(part)

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""
        return self.configs.tokenizer(name)

    def scheduler(self) -> Any:
        """Return the scheduler of the configs."""
        return self.configs.scheduler()


@dataclass(frozen=True)
class VaeFile:
    """A VAE as one .safetensors file, in the original or in diffusers' layout; its config is that of a base."""

    path: Path
    family: Family
    base_config: Config | None

    def config(self, part: Part) -> Config | None:
        """Return the config of the VAE, None for another part."""
        return self.base_config if part == "vae" else None

    def load(self, part: Part, dtype: torch.dtype) -> Any:
        """Return the VAE in `dtype`; raises as `SingleFile.load` does, InputError if the base has no config of it."""
        if self.base_config is None:
            raise InputError(f"{self.path}: the base has no vae/config.json to read this VAE with; give a VAE folder")
        return built(open_vae_file(self.path, self.family), part, self.base_config, dtype)

    def identity(self, part: Part) -> str:
        """Return the SHA-256 of the stored weights."""
        return open_vae_file(self.path, self.family).identity(part)


def built(checkpoint: Checkpoint, part: Part, config: Config, dtype: torch.dtype) -> Any:
    """Return the model of one part in `dtype`, matched tensor by tensor.

    Raises FormatError for tensors that are missing, have no place in the model, or another shape.
    """
    kind = model_class(checkpoint.architecture.family.component(part))
    try:
        with quiet_libraries(), init_empty_weights():
            own = CLIPTextConfig.from_dict(dict(config)) if part in TEXT_ENCODERS else None
            model = kind.from_config(dict(config)) if own is None else kind(own)
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError(
            f"{checkpoint.path}: no {part} can be made of its config ({reason}); copy it again"
        ) from error
    wanted = {canonical(part, name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    given = {name: checkpoint.type_of((owner, name)).shape for owner, name in checkpoint.places if owner == part}
    wrong = sorted(
        [f"missing {name}" for name in wanted.keys() - given.keys()]
        + [f"unknown {name}" for name in given.keys() - wanted.keys()]
        + [f"of another shape {name}" for name in wanted.keys() & given.keys() if wanted[name][1] != given[name]]
    )
    if wrong:
        raise FormatError(
            f"{checkpoint.path}: its {part} does not fit the config: {len(wrong)} tensors do not match, first: "
            f"{wrong[0]}; give the configs of this model"
        )
    state = {}
    for name, (key, _) in wanted.items():
        state[key] = checkpoint.read((part, name)).to(dtype, memory_format=torch.contiguous_format, copy=True)
        checkpoint.forget((part, name))
    model.load_state_dict(state, strict=True, assign=True)
    return model

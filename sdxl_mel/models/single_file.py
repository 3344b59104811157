"""A base model as one .safetensors file in the original (generative-models) layout, with its configs in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.models.folder import Folder, model_class
from sdxl_mel.models.hashing import hash_tensors, header_of, quiet_libraries, tensors_of
from sdxl_mel.models.sdxl import NEEDED
from sdxl_mel.sound.melspec import MelSpec

if TYPE_CHECKING:
    from torch import Tensor

CLIP_PARTS = ("text_encoder", "text_encoder_2")
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}
NOT_WEIGHTS = ("position_ids", "logit_scale")
"""In files of the original layout, and no tensors of diffusers' models."""
SPEC_KEY = "melspec"
OTHER_FILES = {
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "cond_stage_model.model.": "SD 2.x",
    "cond_stage_model.": "SD 1.x",
    "lora_": "a LoRA, not a base model",
    "unet.": "a LoRA, not a base model",
    "down_blocks.": "one part alone in diffusers' layout; give the folder it came from",
    "encoder.": "a VAE alone, which --vae takes",
    "text_model.": "a text encoder alone",
}
"""What a file is that has tensors with such names and not both text encoders of SDXL; the first that fits."""


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint of all parts; `configs` is a diffusers folder that may hold no weights."""

    path: Path
    configs: Folder

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in the file's header, if there is one."""
        text = header_of(self.path)[1].get(SPEC_KEY)
        return MelSpec.from_json(text, str(self.path)) if text else self.configs.spec

    def require_parts(self, parts: Sequence[str]) -> "SingleFile":
        """Return itself; raises InputError that lists what the file or its configs lack of `parts`."""
        shapes, _ = header_of(self.path)
        for part in parts:
            if not any(name.startswith(PREFIXES[part]) for name in shapes):
                raise InputError(f"{self.path}: lacks the {part} (no {PREFIXES[part]}*); {NEEDED}")
            if self.configs.config(part) is None:
                raise InputError(f"{self.configs.path}: lacks {part}/config.json, which {self.path.name} needs")
        return self

    def config(self, part: str) -> dict[str, Any] | None:
        """Return the config of one part."""
        return self.configs.config(part)

    def load(self, part: str, dtype: Any) -> Any:
        """Return one model in `dtype`; raises FormatError for damaged weights or any that do not match the config."""
        with quiet_libraries():
            return self._model(part).to(dtype)

    def identity(self, part: str) -> str:
        """Return the SHA-256 of the stored weights of one part, under diffusers' names."""
        return hash_tensors(self._model(part).state_dict().items())

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""
        return self.configs.tokenizer(name)

    def scheduler(self) -> Any:
        """Return the scheduler of the configs."""
        return self.configs.scheduler()

    def _model(self, part: str) -> Any:
        return converted(self.path, part, PREFIXES[part], self.config(part) or {})


@dataclass(frozen=True)
class VaeFile:
    """A VAE as one .safetensors file, in the original or in diffusers' layout; its config is that of a base."""

    path: Path
    base_config: dict[str, Any] | None

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return None: a VAE alone says nothing of pictures."""
        return None

    def config(self, part: str) -> dict[str, Any] | None:
        """Return the config of the VAE, None for another part."""
        return self.base_config if part == "vae" else None

    def load(self, part: str, dtype: Any) -> Any:
        """Return the VAE in `dtype`; raises as `SingleFile.load` does."""
        with quiet_libraries():
            return self._model(part).to(dtype)

    def identity(self, part: str) -> str:
        """Return the SHA-256 of the stored weights."""
        return hash_tensors(self._model(part).state_dict().items())

    def tokenizer(self, name: str) -> Any:
        """Raise InputError: a VAE has none."""
        raise InputError(f"{self.path}: a VAE has no {name}")

    def scheduler(self) -> Any:
        """Raise InputError: a VAE has none."""
        raise InputError(f"{self.path}: a VAE has no scheduler")

    def _model(self, part: str) -> Any:
        names = header_of(self.path)[0]
        prefix = next((known for known in (PREFIXES["vae"], "vae.") if any(n.startswith(known) for n in names)), "")
        if not any(name.startswith(f"{prefix}encoder.conv_in") for name in names):
            raise InputError(f"{self.path}: holds no VAE (no encoder.conv_in)")
        if self.base_config is None:
            raise InputError(f"{self.path}: the base has no vae/config.json to read this VAE with; give a VAE folder")
        return converted(self.path, part, prefix, self.base_config)


def require_sdxl_file(path: Path) -> None:
    """Raise InputError that says what a single file is instead, unless it is an SDXL base."""
    shapes, _ = header_of(path)
    found = _other_file(shapes)
    if found:
        raise InputError(f"{path}: this is {found}; {NEEDED}")


def converted(path: Path, part: str, prefix: str, config: dict[str, Any]) -> Any:
    """Return the model of one part in the precision of the file, converted by diffusers and matched tensor by tensor.

    Raises FormatError for tensors that are missing, have no place in the model, or another shape.
    """
    bare = prefix if part == "vae" else ""
    stored = {name.removeprefix(bare): tensor for name, tensor in tensors_of(path, prefix)}
    try:
        with quiet_libraries():
            model = _built(part, stored, config)
    except (ValueError, RuntimeError, KeyError, IndexError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"{path}: its {part} does not fit the config: {reason}") from error
    return model


def _other_file(shapes: dict[str, tuple[int, ...]]) -> str:
    entry = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    two_encoders = all(any(name.startswith(PREFIXES[part]) for name in shapes) for part in CLIP_PARTS)
    if len(entry) == 4 and entry[1] == 9:
        return f"an inpainting model of {'SDXL' if two_encoders else 'SD 1.5 or 2'}"
    if two_encoders:
        return ""
    first = next(iter(sorted(shapes)), "none")
    kinds = (what for mark, what in OTHER_FILES.items() if any(name.startswith(mark) for name in shapes))
    return next(kinds, f"no checkpoint in the original layout (its first tensor: {first})")


def _built(part: str, stored: "dict[str, Tensor]", config: Any) -> Any:
    from accelerate import init_empty_weights
    from transformers import CLIPTextConfig

    kind = model_class(part)
    with init_empty_weights():
        model = kind(CLIPTextConfig.from_dict(config)) if part in CLIP_PARTS else kind.from_config(config)
    state = _diffusers_state(part, stored, model)
    used, given = (sum(tensor.numel() for tensor in tensors.values()) for tensors in (state, _weights_of(stored)))
    if used != given:
        raise ValueError(f"{given - used} of its {given} numbers have no place in the model")
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _diffusers_state(part: str, stored: "dict[str, Tensor]", model: Any) -> "dict[str, Tensor]":
    from diffusers.loaders import single_file_utils as conversions

    match part:
        case "unet":
            return conversions.convert_ldm_unet_checkpoint(stored, model.config)
        case "vae" if "encoder.down_blocks.0.resnets.0.conv1.weight" in stored:
            return stored
        case "vae":
            return conversions.convert_ldm_vae_checkpoint(stored, model.config)
        case "text_encoder":
            state = conversions.convert_ldm_clip_checkpoint(_weights_of(stored))
        case _:
            state = conversions.convert_open_clip_checkpoint(model, _weights_of(stored), prefix=PREFIXES[part])
    if hasattr(model, "text_model"):
        return state
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def _weights_of(stored: "dict[str, Tensor]") -> "dict[str, Tensor]":
    return {name: tensor for name, tensor in stored.items() if not name.endswith(NOT_WEIGHTS)}

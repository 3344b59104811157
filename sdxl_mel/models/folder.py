"""A base model as a diffusers folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.models.hashing import hash_files, quiet_libraries
from sdxl_mel.sound.melspec import MelSpec

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
SPEC_FILE = "melspec.json"
CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}


@dataclass(frozen=True)
class Folder:
    """A diffusers folder; or, as a source of the VAE alone, the folder of a VAE."""

    path: Path

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in `melspec.json`, if there is one."""
        file = self.path / SPEC_FILE
        return MelSpec.from_json(file.read_bytes(), str(file)) if file.is_file() else None

    def pipeline_class(self) -> str:
        """Return the pipeline's class as model_index.json states it; empty without one."""
        return str((_read_json(self.path / "model_index.json") or {}).get("_class_name", ""))

    def configs(self) -> dict[str, dict[str, Any]]:
        """Return the config of every part that is present."""
        found = {part: self.config(part) for part in PARTS}
        return {part: config for part, config in found.items() if config is not None}

    def config(self, part: str) -> dict[str, Any] | None:
        """Return the config of one part, None without one."""
        return _read_json(self.place(part) / "config.json")

    def place(self, part: str) -> Path:
        """Return the folder of a part; a VAE may be the folder itself."""
        inside = self.path / part
        alone = part == "vae" and not inside.is_dir() and not (self.path / "model_index.json").is_file()
        return self.path if alone else inside

    def require_parts(self, parts: Sequence[str]) -> None:
        """Raise InputError that lists what is missing of `parts`."""
        missing = [part for part in parts if self.config(part) is None or not self.weights(part)]
        if missing:
            listed = ", ".join(f"{part}/ (config.json and .safetensors weights)" for part in missing)
            raise InputError(f"{self.path}: lacks {listed}; copy the whole pipeline or download it again")

    def weights(self, part: str) -> list[Path]:
        """Return the weight files of a part: full precision if present, else the fp16 variant."""
        stem = "diffusion_pytorch_model" if CLASSES[part][0] == "diffusers" else "model"
        files = sorted(path for path in self.place(part).glob(f"{stem}*.safetensors") if "non_ema" not in path.name)
        full = [path for path in files if ".fp16" not in path.name]
        return full or files

    def load(self, part: str, dtype: Any) -> Any:
        """Return one model in `dtype`; raises FormatError for damaged weights or any that do not match the config."""
        from safetensors import SafetensorError

        place, files = self.place(part), self.weights(part)
        options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        if files and ".fp16" in files[0].name:
            options["variant"] = "fp16"
        try:
            with quiet_libraries():
                model, info = model_class(part).from_pretrained(place, **options)
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
            raise FormatError(f"{place}: cannot load these weights: {_first_line(error)}; copy them again") from error
        wrong = sorted(
            [f"missing {key}" for key in info["missing_keys"]]
            + [f"unknown {key}" for key in info["unexpected_keys"] if not key.endswith("position_ids")]
            + [f"of another shape {key[0]}" for key in info["mismatched_keys"]]
        )
        if wrong:
            raise FormatError(f"{place}: {len(wrong)} tensors do not match its config.json, first: {wrong[0]}")
        return model

    def identity(self, part: str) -> str:
        """Return the SHA-256 of the stored weights of one part."""
        return hash_files(self.weights(part))

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""
        from transformers import CLIPTokenizer

        place = self.path / name
        if not place.is_dir():
            raise InputError(f"{self.path}: lacks {name}/; copy the whole pipeline or download it again")
        try:
            with quiet_libraries():
                return CLIPTokenizer.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{place}: not a CLIP tokenizer: {_first_line(error)}") from error

    def scheduler(self) -> Any:
        """Return the scheduler in `scheduler/`; SDXL's own, Euler, where it is missing."""
        import diffusers

        config = _read_json(self.path / "scheduler" / "scheduler_config.json")
        if config is None:
            return diffusers.EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            )
        kind = getattr(diffusers, str(config.get("_class_name", "")), None)
        if kind is None:
            raise MissingError(
                f"{self.path}/scheduler: scheduler {config.get('_class_name')!r} is not in the installed diffusers; "
                "update it"
            )
        return kind.from_config(config)


def model_class(part: str) -> Any:
    """Return the class of a part's model."""
    import importlib

    library, name = CLASSES[part]
    return getattr(importlib.import_module(library), name)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a config: found {type(content).__name__}, expected an object")
    return content


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

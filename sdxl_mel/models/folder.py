"""A base model as a diffusers folder: its configs, its models, and the hash of their weights."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import diffusers
import diffusers.utils.logging as diffusers_logging
import torch
import transformers
import transformers.utils.logging as transformers_logging
from safetensors import SafetensorError
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError, MissingError
from sdxl_mel.files.tensors import TensorFile, tensor_bytes
from sdxl_mel.models.families import family_of_configs
from sdxl_mel.models.family import PARTS, TEXT_ENCODERS, Component, Config, Family, Part, weights_stem
from sdxl_mel.models.layouts import without_text_model
from sdxl_mel.sound.melspec import MelSpec

SPEC_FILE = "melspec.json"


@dataclass(frozen=True)
class Folder:
    """A diffusers folder; or, as a source of the VAE for a base of the family `vae_of`, the folder of a VAE."""

    path: Path
    vae_of: Family | None = None

    @cached_property
    def family(self) -> Family:
        """Return the family of its models. Raises InputError that says what they are instead."""
        if self.vae_of is not None:
            return self.vae_of
        found: dict[str, Config | None] = {part: self.config(part) for part in PARTS}
        pipeline_class = str((_read_json(self.path / "model_index.json") or {}).get("_class_name", ""))
        configs = {part: config for part, config in found.items() if config is not None}
        return family_of_configs(configs, pipeline_class, str(self.path))

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in `melspec.json`, if there is one."""
        file = self.path / SPEC_FILE
        return MelSpec.from_json(file.read_bytes(), str(file)) if file.is_file() else None

    def config(self, part: Part) -> Config | None:
        """Return the config of one part, None without one."""
        return _read_json(self.place(part) / "config.json")

    def place(self, part: Part) -> Path:
        """Return the folder of a part; a VAE may be the folder itself."""
        inside = self.path / part
        alone = part == "vae" and not inside.is_dir() and not (self.path / "model_index.json").is_file()
        return self.path if alone else inside

    def require_parts(self, parts: Sequence[Part]) -> None:
        """Raise InputError that lists what is missing of `parts`."""
        missing = [part for part in parts if self.config(part) is None or not self.weights(part)]
        if missing:
            listed = ", ".join(f"{part}/ (config.json and .safetensors weights)" for part in missing)
            raise InputError(f"{self.path}: lacks {listed}; copy the whole pipeline or download it again")

    def weights(self, part: Part) -> list[Path]:
        """Return the weight files of a part: full precision if present, else the fp16 variant."""
        found = self.place(part).glob(f"{weights_stem(part)}*.safetensors")
        files = sorted(path for path in found if "non_ema" not in path.name)
        full = [path for path in files if ".fp16" not in path.name]
        return full or files

    def load(self, part: Part, dtype: torch.dtype) -> Any:
        """Return one model in `dtype`; raises FormatError for damaged weights or any that do not match the config."""
        place, files = self.place(part), self.weights(part)
        options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        if files and ".fp16" in files[0].name:
            options["variant"] = "fp16"
        try:
            with quiet_libraries():
                model, info = model_class(self.family.component(part)).from_pretrained(place, **options)
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

    def identity(self, part: Part) -> str:
        """Return the SHA-256 of the stored weights of one part; remembered while the files do not change."""
        files = [(path, path.stat()) for path in self.weights(part)]
        return _hash_files(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in files))

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""
        place = self.path / name
        if not place.is_dir():
            raise InputError(f"{self.path}: lacks {name}/; copy the whole pipeline or download it again")
        try:
            with quiet_libraries():
                return transformers.CLIPTokenizer.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{place}: not a CLIP tokenizer: {_first_line(error)}") from error

    def scheduler(self) -> Any:
        """Return the scheduler in `scheduler/`; its family's own where it is missing."""
        config = _read_json(self.path / "scheduler" / "scheduler_config.json") or self.family.scheduler
        kind = getattr(diffusers, str(config.get("_class_name", "")), None)
        if kind is None:
            raise MissingError(
                f"{self.path}/scheduler: scheduler {config.get('_class_name')!r} is not in the installed diffusers; "
                "update it"
            )
        return kind.from_config(dict(config))


def model_class(component: Component) -> Any:
    """Return the class of a part's model."""
    return getattr(transformers if component.part in TEXT_ENCODERS else diffusers, component.class_name)


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of named tensors: names in order, kinds, shapes and bytes.

    Names are those of diffusers; `text_model.` and the buffer `position_ids`, which come and go between versions of
    transformers, do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted((without_text_model(name), tensor) for name, tensor in tensors):
        if not name.endswith("position_ids"):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


@lru_cache(maxsize=16)
def _hash_files(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    files = [TensorFile(path) for path, _, _ in stamps]
    return hash_tensors((name, file.read(name)) for file in files for name in file.types)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars and warnings of diffusers and transformers: whatever they would warn of is checked here."""
    both = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in both]
    for library in both:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (level, had_bar) in zip(both, before):
            library.set_verbosity(level)
            if had_bar:
                library.enable_progress_bar()


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

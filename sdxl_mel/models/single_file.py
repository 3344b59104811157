"""A base model, or a VAE, as one .safetensors file; what it does not carry of its configs is public, or in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdxl_mel.errors import InputError
from sdxl_mel.files.carried import Files, carried_metadata, files_in
from sdxl_mel.files.tensors import TensorFile
from sdxl_mel.files.tokenizer import is_public, tokenizer_files, tokenizer_of_files
from sdxl_mel.models.checkpoint import Checkpoint, open_single_file, open_vae_file
from sdxl_mel.models.families import NEEDED
from sdxl_mel.models.family import Config, Family, Part
from sdxl_mel.models.folder import INDEX_FILE, SCHEDULER_FILE, Folder, json_bytes, public_configs
from sdxl_mel.models.scheduler import marked_config
from sdxl_mel.sound.melspec import MelSpec

SPEC_KEY = "melspec"
PASSING = ("_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype", "architectures")
"""Of a config, what says nothing of the model."""


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint of all parts in the original layout.

    `configs` is a diffusers folder that may hold no weights, `carried` what the file's header holds instead.
    """

    path: Path
    configs: Folder
    carried: Files = field(default_factory=dict, compare=False)

    @property
    def family(self) -> Family:
        """Return the family of its models."""
        return self.configs.family

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in the file's header, else that of the configs."""
        text = TensorFile(self.path).metadata.get(SPEC_KEY)
        return MelSpec.from_json(text, str(self.path)) if text else self.configs.spec

    @cached_property
    def scheduler_config(self) -> Config:
        """Return the scheduler's config as the file's marks change it."""
        file = TensorFile(self.path)
        return marked_config(
            self.carried.get(SCHEDULER_FILE) or self.configs.scheduler_config, file.types.keys(), file.metadata
        )

    @property
    def index(self) -> Config:
        """Return a pipeline's model_index.json, with the class of this scheduler."""
        index = self.carried.get(INDEX_FILE) or self.configs.index
        return {**index, "scheduler": ["diffusers", self.scheduler_config["_class_name"]]}

    def require_parts(self, parts: Sequence[Part]) -> "SingleFile":
        """Return itself; raises InputError that lists what the file or its configs lack of `parts`."""
        names = TensorFile(self.path).types
        for part in parts:
            prefix = self.family.component(part).original
            if not any(name.startswith(prefix) for name in names):
                raise InputError(f"{self.path}: lacks the {part} (no {prefix}*); {NEEDED}")
            if self.config(part) is None:
                raise InputError(f"{self.configs.path}: lacks {part}/config.json, which {self.path.name} needs")
        return self

    def config(self, part: Part) -> Config | None:
        """Return the config of one part."""
        return self.carried.get(f"{part}/config.json") or self.configs.config(part)

    def checkpoint(self, parts: Sequence[Part]) -> Checkpoint:
        """Return the tensors of some parts."""
        return open_single_file(self.path, parts)

    def weights(self, part: Part) -> list[Path]:
        """Return the file."""
        return [self.path]

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""
        files = files_in(self.carried, name)
        return tokenizer_of_files(files) if files else self.configs.tokenizer(name)

    def has_tokenizer(self, name: str) -> bool:
        """Return whether the file or its configs hold a tokenizer; see `Folder`."""
        return bool(files_in(self.carried, name)) or self.configs.has_tokenizer(name)

    def small_files(self) -> dict[str, bytes]:
        """Return all but the weights by name, as a folder has them."""
        folders = {Path(file).parts[0] for file in self.carried if len(Path(file).parts) > 1}
        public = {file: text for file, text in self.configs.small_files().items() if Path(file).parts[0] not in folders}
        files = public | {file: json_bytes(content) for file, content in self.carried.items()}
        if self.scheduler_config != self.configs.scheduler_config:
            files |= {INDEX_FILE: json_bytes(self.index), SCHEDULER_FILE: json_bytes(self.scheduler_config)}
        return files


@dataclass(frozen=True)
class VaeFile:
    """A VAE as one .safetensors file, in the original or in diffusers' layout; its config is that of a base."""

    path: Path
    family: Family
    base_config: Config | None = field(compare=False)

    def config(self, part: Part) -> Config | None:
        """Return the config of the VAE, None for another part."""
        return self.base_config if part == "vae" else None

    def checkpoint(self, parts: Sequence[Part]) -> Checkpoint:
        """Return the tensors of the VAE."""
        return open_vae_file(self.path, self.family)

    def weights(self, part: Part) -> list[Path]:
        """Return the file."""
        return [self.path]


def configs_metadata(source: Folder | SingleFile, replaced: Mapping[str, Config] | None = None) -> dict[str, str]:
    """Return the header of a single file by which it needs no folder: what differs from the family's public configs.

    `replaced` are configs of other parts than the source's, by file. `carried_files` is the inverse.
    """
    own, public = (_json_files(each) for each in (source, public_configs(source.family)))
    own |= {name: _telling(config) for name, config in (replaced or {}).items()}
    carried = {name: config for name, config in own.items() if config != public[name]}
    for encoder in source.family.text_encoders:
        if not source.has_tokenizer(encoder.tokenizer):
            continue  # It is CLIP's own, and transformers need not be imported to find that.
        tokenizer = source.tokenizer(encoder.tokenizer)
        if not is_public(tokenizer, encoder.padding):
            files = tokenizer_files(tokenizer)
            carried |= {f"{encoder.tokenizer}/{file}": content for file, content in files.items()}
    return carried_metadata(carried)


def _json_files(source: Folder | SingleFile) -> dict[str, Config]:
    """Return the index and the configs of a base by name, without what is `PASSING`."""
    configs = {f"{part}/config.json": source.config(part) for part in source.family.parts}
    files = {INDEX_FILE: source.index, SCHEDULER_FILE: source.scheduler_config, **configs}
    return {name: _telling(config) for name, config in files.items() if config is not None}


def _telling(config: Config) -> Config:
    return {key: value for key, value in config.items() if key not in PASSING}

"""A base model as a diffusers folder: its configs, its weight files, its tokenizers and its scheduler."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdxl_mel.assets import ASSETS
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.run import REFINER_NAME, SMALL_DECODER_NAME
from sdxl_mel.files.tokenizer import VOCABULARY, public_tokenizer, read_tokenizer, tokenizer_files
from sdxl_mel.models.checkpoint import Checkpoint, open_folder
from sdxl_mel.models.families import family_of_configs
from sdxl_mel.models.family import PARTS, Component, Config, Family, Part, weights_stem
from sdxl_mel.models.layouts import LAYERS_PER_BLOCK
from sdxl_mel.sound.melspec import MelSpec

SPEC_FILE = "melspec.json"
INDEX_FILE = "model_index.json"
SCHEDULER_FILE = "scheduler/scheduler_config.json"
VARIANTS = ("", "fp32", "fp16", "bf16")
"""Of several the first is read: full precision, then what rounds least; non_ema, before averaging, is last."""
SHARD = r"(?:-\d{5}-of-\d{5})?"
PICKLED = ("*.bin", "*.ckpt", "*.pt")


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
        configs = {part: config for part, config in found.items() if config is not None}
        index = read_json(self.path / INDEX_FILE) or {}
        own = read_json(self.path / "config.json") or {}
        pipeline_class = index.get("_class_name") or own.get("_class_name") or "".join(own.get("architectures") or "")
        try:
            return family_of_configs(configs, str(pipeline_class), str(self.path))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise FormatError(f"{self.path}: its configs are damaged ({reason}); copy them again") from error

    @cached_property
    def spec(self) -> MelSpec | None:
        """Return the spec in `melspec.json`, if there is one."""
        file = self.path / SPEC_FILE
        return MelSpec.from_json(file.read_bytes(), str(file)) if file.is_file() else None

    @cached_property
    def index(self) -> Config:
        """Return the pipeline's model_index.json; that of the family's public base where it is missing."""
        return read_json(self.path / INDEX_FILE) or public_configs(self.family).index

    @cached_property
    def scheduler_config(self) -> Config:
        """Return the config in `scheduler/`; that of the family's public base where it is missing."""
        return read_json(self.path / SCHEDULER_FILE) or public_configs(self.family).scheduler_config

    def config(self, part: Part) -> Config | None:
        """Return the config of one part, None without one."""
        return read_json(self.place(part) / "config.json")

    def place(self, part: Part) -> Path:
        """Return the folder of a part; a VAE may be the folder itself."""
        inside = self.path / part
        alone = part == "vae" and not inside.is_dir() and not (self.path / INDEX_FILE).is_file()
        return self.path if alone else inside

    def require_parts(self, parts: Sequence[Part]) -> None:
        """Raise InputError that lists what is missing of `parts`, or is there as a pickle alone."""
        missing = [part for part in parts if self.config(part) is None or not self.weights(part)]
        if not missing:
            return
        pickled = [file for part in missing for kind in PICKLED for file in sorted(self.place(part).glob(kind))]
        if pickled:
            raise InputError(
                f"{pickled[0]}: a pickle, which can run any code when it is opened, and there are no .safetensors "
                "beside it; convert it where that is safe: load the pipeline in diffusers, then "
                "save_pretrained(FOLDER, safe_serialization=True)"
            )
        listed = ", ".join(f"{part}/ (config.json and .safetensors weights)" for part in missing)
        raise InputError(f"{self.path}: lacks {listed}; copy the whole pipeline or download it again")

    def weights(self, part: Part) -> list[Path]:
        """Return the weight files of a part in the first of `VARIANTS` that is there; an index wins over a whole file.

        Raises FormatError for an index that names a file which is not there.
        """
        place, stem = self.place(part), weights_stem(part)
        variants = _by_variant(place, stem)
        if not variants:
            return []
        chosen = min(variants, key=lambda name: (VARIANTS.index(name) if name in VARIANTS else len(VARIANTS), name))
        middle = f".{chosen}" if chosen else ""
        for index in (f"{stem}.safetensors.index{middle}.json", f"{stem}{middle}.safetensors.index.json"):
            weight_map = (read_json(place / index) or {}).get("weight_map", {})
            if not isinstance(weight_map, dict):
                raise FormatError(f"{place / index}: its weight_map names no files; copy the folder again")
            names = sorted(set(map(str, weight_map.values())))
            absent = [name for name in names if not (place / name).is_file()]
            if absent:
                raise FormatError(f"{place / index}: names {absent[0]}, which is not there; copy the folder again")
            if names:
                return [place / name for name in names]
        whole = place / f"{stem}{middle}.safetensors"
        return [whole] if whole in variants[chosen] else variants[chosen]

    def checkpoint(self, parts: Sequence[Part]) -> Checkpoint:
        """Return the tensors of some parts."""
        layers = (self.config("unet") or {}).get("layers_per_block", LAYERS_PER_BLOCK)
        return open_folder(self.path, {part: self.weights(part) for part in parts}, self.family, layers)

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`; CLIP's own where it is missing and the encoder has CLIP's vocabulary."""
        if self.has_tokenizer(name):
            return read_tokenizer(self.path / name)
        return public_tokenizer(self._encoder_of(name).padding)

    def _encoder_of(self, tokenizer: str) -> Component:
        return next(each for each in self.family.text_encoders if each.tokenizer == tokenizer)

    def has_tokenizer(self, name: str) -> bool:
        """Return whether a tokenizer lies in the folder. Raises InputError where CLIP's own does not do instead."""
        if (self.path / name).is_dir():
            return True
        encoder = self._encoder_of(name)
        size = (self.config(encoder.part) or {}).get("vocab_size")
        if size != VOCABULARY:
            raise InputError(
                f"{self.path}: lacks {name}/, and its {encoder.part} reads {size} tokens, CLIP has {VOCABULARY}; copy "
                "the whole pipeline or download it again"
            )
        return False

    def small_files(self) -> dict[str, bytes]:
        """Return all but the weights of parts by name: index, configs, scheduler, tokenizers, what it carries."""
        family = self.family
        names = ["scheduler", *(encoder.tokenizer for encoder in family.text_encoders)]
        places = [
            path
            for name in (*names, SMALL_DECODER_NAME, REFINER_NAME)
            if (self.path / name).is_dir()
            for path in (self.path / name).rglob("*")
        ]
        places += [self.path / INDEX_FILE, *(self.place(part) / "config.json" for part in family.parts)]
        files = {path.relative_to(self.path).as_posix(): path.read_bytes() for path in sorted(places) if path.is_file()}
        for name in names[1:]:
            if not (self.path / name).is_dir():
                made = tokenizer_files(self.tokenizer(name))
                files |= {f"{name}/{file}": json_bytes(content) for file, content in made.items()}
        return {INDEX_FILE: json_bytes(self.index)} | files


def public_configs(family: Family) -> Folder:
    """Return the configs of a family's published base, without weights: they ship with the package."""
    return Folder(ASSETS / family.name)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None without one. Raises FormatError for anything else in it."""
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a config: found {type(content).__name__}, expected an object")
    return content


def json_bytes(content: Config) -> bytes:
    """Return a config as a file of a folder holds it."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _by_variant(place: Path, stem: str) -> dict[str, list[Path]]:
    """Return the weight files in a folder by variant: "" for model.safetensors, fp16 for model.fp16.safetensors."""
    pattern = re.compile(rf"{re.escape(stem)}(?:\.(?P<first>[\w.]+?))?{SHARD}(?:\.(?P<last>\w+))?\.safetensors")
    found: dict[str, list[Path]] = {}
    for path in sorted(place.glob("*.safetensors")):
        if match := pattern.fullmatch(path.name):
            found.setdefault(match["first"] or match["last"] or "", []).append(path)
    return found

"""Base models from a diffusers folder, a single file, the hub or the package itself: part by part, or as tensors.

No code below knows where a base came from, nor whether it is the shipped `mini` or a published one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from sdxl_mel.assets import base_path, may_be_hub_id
from sdxl_mel.errors import InputError, MissingError, ResourceError
from sdxl_mel.files.carried import carried_files
from sdxl_mel.files.tensors import TensorFile, refuse_pickle
from sdxl_mel.models.checkpoint import Checkpoint
from sdxl_mel.models.families import family_of_file, require_vae
from sdxl_mel.models.family import PARTS, Family, Part
from sdxl_mel.models.folder import INDEX_FILE, Folder, public_configs
from sdxl_mel.models.layouts import LAYERS_PER_BLOCK, Architecture
from sdxl_mel.models.scheduler import make_base_scheduler
from sdxl_mel.models.single_file import SingleFile, VaeFile
from sdxl_mel.sound.melspec import MelSpec

Source = Folder | SingleFile
"""Where all parts of a base come from."""
PartSource = Source | VaeFile
"""Where one part comes from: a base, or a VAE alone."""
HALF = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.bf16-*")
"""Files of variants in half precision on the hub."""


def find_source(name: str, parts: Sequence[Part], config: Path | None = None) -> Source:
    """Return the source of a base; its family is recognised, and it has those of `parts` that its family has."""
    path = base_path(name)
    if path.is_file():
        return _single_file(path, parts, config)
    folder = Folder(path if path.is_dir() else _fetched(name, parts))
    folder.require_parts([part for part in parts if part in folder.family.parts])
    return folder


def find_vae(name: str, base: Source) -> PartSource:
    """Return the source of another VAE: its folder, a pipeline's folder, a single file, or a hub id."""
    path = base_path(name)
    if path.is_file():
        return VaeFile(path, base.family, base.config("vae"))
    folder = Folder(path if path.is_dir() else _fetched(name, ("vae",)), vae_of=base.family)
    config = folder.config("vae")
    if config is None:
        raise InputError(f"{name}: no VAE here (no config.json of an AutoencoderKL, no vae folder)")
    require_vae(config, name)
    return folder


def open_checkpoint(name: str, config: Path | None = None, *, whole: bool) -> tuple[Checkpoint, Source]:
    """Return a base's tensors without loading a model, and where they come from; a `whole` single file has all parts.

    Raises InputError for what is no base or lacks a part.
    """
    path = base_path(name)
    source = find_source(name, PARTS if whole or not path.is_file() else (), config)
    return source.checkpoint(source.family.parts), source


def _single_file(path: Path, parts: Sequence[Part], config: Path | None) -> SingleFile:
    """Return a single file with its configs: as stated, else in its header, else beside it, else the public ones."""
    refuse_pickle(path)
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path}: a single file must be .safetensors, found {path.suffix or 'no extension'}; convert it"
        )
    family = family_of_file({name: kind.shape for name, kind in TensorFile(path).types.items()}, path)
    carried = {} if config else carried_files(path)
    beside = (Folder(place) for place in (path.with_suffix(""), path.parent) if (place / INDEX_FILE).is_file())
    public = public_configs(family)
    folder = Folder(config) if config else public if carried else next(beside, public)
    if folder.family is not family:
        raise InputError(
            f"{folder.path}: configs of {folder.family.title}, {path.name} is {family.title}; give configs of its kind"
        )
    return SingleFile(path, folder, carried).require_parts([part for part in parts if part in family.parts])


def _fetched(hub_id: str, parts: Sequence[Part]) -> Path:
    """Return the folder of a hub repository on this machine, fetching the files of `parts` first.

    Half precision is fetched only where there is no other. Raises InputError for what is no hub id.
    """
    if not may_be_hub_id(hub_id):
        raise InputError(
            f"{hub_id}: no such folder or file; a base is a diffusers folder, a .safetensors file, a hub id "
            "(owner/name) or mini"
        )
    # Imported here, so that a base on this machine needs no client of the hub.
    from huggingface_hub import errors, snapshot_download

    wanted = ["*.json", "tokenizer*/*", *(f"{part}/*.safetensors" for part in parts)]
    if list(parts) == ["vae"]:
        wanted.append("diffusion_pytorch_model*.safetensors")
    try:
        path = Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=[*HALF, "*non_ema*"]))
        folder = Folder(path)
        if not all(folder.weights(part) for part in parts if folder.config(part) is not None):
            path = Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=["*non_ema*"]))
    except (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        OSError,
    ) as error:
        raise MissingError(
            f"{hub_id}: not a folder here, not in the hub cache and cannot be fetched; download it to a folder "
            f"and give that ({type(error).__name__})"
        ) from error
    return path


@dataclass(frozen=True)
class Base:
    """An open base: those of its models that were asked for, frozen and in evaluation mode, and their tokenizers.

    A part that was not asked for, or that its family has not, is None.
    """

    name: str
    source: Source = field(repr=False)
    vae_source: PartSource = field(repr=False)
    models: dict[Part, Any] = field(repr=False)
    tokenizers: dict[str, Any] = field(repr=False)
    scheduler: Any = field(repr=False)

    @property
    def unet(self) -> Any:
        """Return the UNet."""
        return self.models.get("unet")

    @property
    def vae(self) -> Any:
        """Return the VAE."""
        return self.models.get("vae")

    @property
    def text_encoder(self) -> Any:
        """Return the first text encoder."""
        return self.models.get("text_encoder")

    @property
    def text_encoder_2(self) -> Any:
        """Return the second text encoder, of a family that has two."""
        return self.models.get("text_encoder_2")

    @property
    def tokenizer(self) -> Any:
        """Return the first text encoder's tokenizer."""
        return self.tokenizers.get("tokenizer")

    @property
    def tokenizer_2(self) -> Any:
        """Return the second text encoder's tokenizer."""
        return self.tokenizers.get("tokenizer_2")

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """Return the text encoders that are open."""
        return tuple(self.models[each.part] for each in self.family.text_encoders if each.part in self.models)

    @property
    def family(self) -> Family:
        """Return what kind of base it is."""
        return self.source.family

    @property
    def architecture(self) -> Architecture:
        """Return what the names of its modules in files depend on."""
        config = self.source.config("unet") or {}
        return Architecture(self.family, config.get("layers_per_block", LAYERS_PER_BLOCK))

    @property
    def spec(self) -> MelSpec | None:
        """Return the spec of the pictures this base was made for, if it says so."""
        return self.source.spec

    @cached_property
    def identity(self) -> dict[Part, str]:
        """Return the SHA-256 of the stored weights of every opened part.

        The same weights have the same identity as a folder, as a single file and on the hub.
        """
        return {part: self.identity_of(part) for part in PARTS if part in self.models}

    def identity_of(self, part: Part) -> str:
        """Return the SHA-256 of the stored weights of a part, opened or not."""
        source = self.source_of(part)
        return _identity(source, part, _stamps(source, part))

    @property
    def latents_identity(self) -> str:
        """Return the identity of the VAE that made its latents: not its own where its decoder alone was trained."""
        return _latents_identity(self.vae_source, _stamps(self.vae_source, "vae"))

    def source_of(self, part: Part) -> PartSource:
        """Return where a part comes from."""
        return self.vae_source if part == "vae" else self.source

    def reading_tokenizer(self) -> Any:
        """Return the last text encoder's tokenizer, opened or not: it says what of a text is read."""
        name = self.family.text_encoders[-1].tokenizer
        return self.tokenizers.get(name) or self.source.tokenizer(name)


def open_base(
    name: str | Path,
    parts: Sequence[Part] = PARTS,
    dtype: torch.dtype | None = None,
    *,
    vae: str | Path | None = None,
    device: str | torch.device = "cpu",
    config: Path | None = None,
) -> Base:
    """Open parts of the base `name`: a diffusers folder, a .safetensors file, a hub id or "mini".

    Of `parts`, those that the base's family has are opened. `dtype` (None = float32) is that of the UNet and the text
    encoders; the VAE is always float32, because SDXL's overflows in float16. `vae` replaces the base's own. `config` is
    the folder with the configs of a single file. Raises InputError for what is no base or lacks a part, FormatError for
    damaged weights, MissingError for a hub id that is not on this machine and cannot be fetched.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise InputError(f"a base has no part {', '.join(sorted(unknown))}; its parts: {', '.join(PARTS)}")
    source = find_source(str(name), parts if vae is None else [part for part in parts if part != "vae"], config)
    base = Base(
        name=str(name),
        source=source,
        vae_source=source if vae is None else find_vae(str(vae), source),
        models={},
        tokenizers={},
        scheduler=make_base_scheduler(source.scheduler_config, str(name)),
    )
    for component in base.family.components:
        if component.part in parts:
            precision = torch.float32 if component.part == "vae" or dtype is None else dtype
            model = _loaded(base.source_of(component.part), component.part, precision)
            base.models[component.part] = _placed(model.requires_grad_(False).eval(), device, name)
            if component.tokenizer:
                base.tokenizers[component.tokenizer] = source.tokenizer(component.tokenizer)
    return base


Stamps = tuple[tuple[Path, int, int], ...]
"""Files, when they were written and how long they are."""


def _stamps(source: PartSource, part: Part) -> Stamps:
    return tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in source.weights(part))


@lru_cache(maxsize=16)
def _identity(source: PartSource, part: Part, stamps: Stamps) -> str:
    """Return the hash of a part's weights; remembered while the `stamps` of their files do not change."""
    return source.checkpoint((part,)).identity(part)


@lru_cache(maxsize=16)
def _latents_identity(source: PartSource, stamps: Stamps) -> str:
    """Return `Checkpoint.latents_identity` of a VAE; remembered as `_identity` is."""
    return source.checkpoint(("vae",)).latents_identity


def _loaded(source: PartSource, part: Part, dtype: torch.dtype) -> Any:
    # Imported here: who fuses or describes reads tensors alone, and diffusers takes longer to import than all else.
    from sdxl_mel.models.loading import load_model

    config = source.config(part)
    if config is None:
        raise InputError(f"{source.path}: the base has no config of a {part} to read this with; give a folder")
    return load_model(source.checkpoint((part,)), part, config, dtype)


def _placed(model: Any, device: str | torch.device, name: str | Path) -> Any:
    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{name}: does not fit on {device}; close what else uses the device or take a smaller --dtype"
        ) from error

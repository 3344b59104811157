"""Base models: SDXL from a diffusers folder, a single file, the hub or the package itself, part by part.

No code below knows where a base came from, nor whether it is the shipped `mini` or the real SDXL.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.sound.melspec import MelSpec

if TYPE_CHECKING:
    import torch
import re
from typing import Protocol

import sdxl_mel
from sdxl_mel.errors import MissingError
from sdxl_mel.models.folder import PARTS, Folder
from sdxl_mel.models.sdxl import require_sdxl, require_vae
from sdxl_mel.models.single_file import SingleFile, VaeFile, require_sdxl_file

MINI = Path(sdxl_mel.__file__).parent / "assets" / "mini"
SDXL_HUB_ID = "stabilityai/stable-diffusion-xl-base-1.0"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

__all__ = ["PARTS", "Source", "find_source", "find_vae"]


class Source(Protocol):
    """Anything that gives the parts of a base."""

    @property
    def path(self) -> Path:
        """Return the folder or the file it lies in."""

    @property
    def spec(self) -> MelSpec | None:
        """Return the spec it was made for, if it says so."""

    def config(self, part: str) -> dict[str, Any] | None:
        """Return the config of one part, None without one."""

    def load(self, part: str, dtype: Any) -> Any:
        """Return one model in `dtype`; every tensor of the file is used and every tensor of the model is filled."""

    def identity(self, part: str) -> str:
        """Return the SHA-256 of the stored weights of one part."""

    def tokenizer(self, name: str) -> Any:
        """Return `tokenizer` or `tokenizer_2`."""

    def scheduler(self) -> Any:
        """Return the scheduler with the noise schedule the base was trained with."""


def find_source(name: str, parts: Sequence[str], config: Path | None = None) -> Source:
    """Return the source of a base that is checked to be SDXL and to have `parts`."""
    path = MINI if name == "mini" else Path(name)
    if path.is_file():
        return _single_file(path, parts, config)
    folder = Folder(path if path.is_dir() else _fetched(name, parts))
    require_sdxl(folder.configs(), folder.pipeline_class(), name)
    folder.require_parts(parts)
    return folder


def find_vae(name: str, base: Source) -> Source:
    """Return the source of another VAE: its folder, a pipeline's folder, a single file, or a hub id."""
    path = MINI if name == "mini" else Path(name)
    if path.is_file():
        return VaeFile(path, base.config("vae"))
    folder = Folder(path if path.is_dir() else _fetched(name, ["vae"]))
    config = folder.config("vae")
    if config is None:
        raise InputError(f"{name}: no VAE here (no config.json of an AutoencoderKL, no vae folder)")
    require_vae(config, name)
    return folder


def _single_file(path: Path, parts: Sequence[str], config: Path | None) -> SingleFile:
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path}: a single file must be .safetensors (a {path.suffix or 'nameless'} file may hold code); convert it"
        )
    require_sdxl_file(path)
    folder = Folder(config or _configs_beside(path) or _fetched(SDXL_HUB_ID, [], asked_by=path))
    require_sdxl(folder.configs(), folder.pipeline_class(), str(folder.path))
    return SingleFile(path, folder).require_parts(parts)


def _configs_beside(path: Path) -> Path | None:
    for folder in (path.with_suffix(""), path.parent):
        if (folder / "model_index.json").is_file():
            return folder
    return None


def _fetched(hub_id: str, parts: Sequence[str], asked_by: Path | None = None) -> Path:
    """Return the folder of a hub repository on this machine, fetching the files of `parts` first.

    The fp16 variant of the weights is fetched only where there is no other.
    """
    if not HUB_ID.fullmatch(hub_id):
        raise InputError(
            f"{hub_id}: no such folder or file; a base is a diffusers folder, a .safetensors file, a hub id "
            "(owner/name) or mini"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = ["*.json", "tokenizer*/*", *(f"{part}/*.safetensors" for part in parts)]
    if list(parts) == ["vae"]:
        wanted.append("diffusion_pytorch_model*.safetensors")
    try:
        path = Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*non_ema*"]))
        if not all(Folder(path).weights(part) for part in parts):
            path = Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=["*non_ema*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        need = (
            f"{asked_by}: a single file holds no configs; put model_index.json and its folders (without weights) in "
            f"{asked_by.with_suffix('')}/, or go online once"
            if asked_by
            else f"{hub_id}: not a folder here, not in the hub cache and cannot be fetched; download it to a folder "
            "and give that"
        )
        raise MissingError(f"{need} ({type(error).__name__})") from error
    return path


TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


@dataclass
class Base:
    """The parts of an SDXL that were asked for (None where not); models are frozen and in evaluation mode."""

    name: str
    source: Source = field(repr=False)
    vae_source: Source = field(repr=False)
    unet: Any = None
    vae: Any = None
    text_encoder: Any = None
    text_encoder_2: Any = None
    tokenizer: Any = None
    tokenizer_2: Any = None
    scheduler: Any = None

    @property
    def spec(self) -> MelSpec | None:
        """Return the spec of the pictures this base was made for, if it says so."""
        return self.source.spec

    @cached_property
    def identity(self) -> dict[str, str]:
        """Return the SHA-256 of the stored weights of every opened part.

        The same weights have the same identity as a folder, as a single file and on the hub.
        """
        return {part: self.identity_of(part) for part in PARTS if getattr(self, part) is not None}

    def identity_of(self, part: str) -> str:
        """Return the SHA-256 of the stored weights of a part, opened or not."""
        return self.source_of(part).identity(part)

    def source_of(self, part: str) -> Source:
        """Return where a part comes from."""
        return self.vae_source if part == "vae" else self.source


def open_base(
    name: str | Path,
    parts: Sequence[str] = PARTS,
    dtype: "torch.dtype | None" = None,
    *,
    vae: str | Path | None = None,
    device: "str | torch.device" = "cpu",
    config: Path | None = None,
) -> Base:
    """Open parts of the base `name`: a diffusers folder, a .safetensors file, a hub id or "mini".

    `dtype` (None = float32) is that of the UNet and the text encoders; the VAE is always float32, because SDXL's
    overflows in float16. `vae` replaces the base's own. `config` is the folder with the configs of a single file.
    Raises InputError for what is not SDXL or lacks a part, FormatError for damaged weights, MissingError for a hub
    id that is not on this machine and cannot be fetched.
    """
    import torch

    unknown = set(parts) - set(PARTS)
    if unknown:
        raise InputError(f"a base has no part {', '.join(sorted(unknown))}; its parts: {', '.join(PARTS)}")
    source = find_source(str(name), parts if vae is None else [part for part in parts if part != "vae"], config)
    vae_source = source if vae is None else find_vae(str(vae), source)
    base = Base(str(name), source, vae_source, scheduler=source.scheduler())
    for part in PARTS:
        if part in parts:
            precision = torch.float32 if part == "vae" or dtype is None else dtype
            model = base.source_of(part).load(part, precision)
            setattr(base, part, _placed(model.requires_grad_(False).eval(), device, name))
            if part in TOKENIZERS:
                setattr(base, TOKENIZERS[part], source.tokenizer(TOKENIZERS[part]))
    return base


def _placed(model: Any, device: "str | torch.device", name: str | Path) -> Any:
    import torch

    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{name}: does not fit on {device}; close what else uses the device or take a smaller --dtype"
        ) from error

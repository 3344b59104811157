"""Base models: SDXL from a diffusers folder, a single file, the hub or the package itself, part by part.

No code below knows where a base came from, nor whether it is the shipped `mini` or the real SDXL.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.models.base_source import PARTS, Source, find_source, find_vae
from sdxl_mel.sound.melspec import MelSpec

if TYPE_CHECKING:
    import torch

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

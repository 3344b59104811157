"""The stage `cache`: latents of every picture and embeddings of every text, computed once."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import Field, model_validator

from sdxl_mel.arguments import Action, Show
from sdxl_mel.config import StageConfig
from sdxl_mel.dataset.settings import CacheContents, CacheSettings


class Encoding(StageConfig):
    """What decides the rows of a cache beside the dataset and the base."""

    vae: str | None = None
    """another VAE: folder, .safetensors file or hub id"""
    variants: int = Field(4, ge=1)
    """variants of each training caption that is a list of tags: its parts in other orders, the anchor first"""
    splits: Annotated[tuple[str, ...], Show.ADVANCED] = ()
    """splits of the dataset to encode, none = all; training never opens test"""
    clip_skip: Annotated[int, Show.ADVANCED] = Field(0, ge=0)
    """layers skipped beyond the penultimate one, which is SDXL's own (SD 1.5's "clip skip 2" is 0 here)"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of the orders of the variants"""
    base_config: Annotated[Path | None, Show.ADVANCED] = None
    """folder with the configs of a single-file base (default: the folder of its name beside it)"""

    def settings_for(self, dataset: Path, base: str) -> CacheSettings:
        """Return the settings of the engine."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in Encoding.model_fields}
        return CacheSettings(dataset, base, **shared)


class Build(Encoding):
    """Encode a prepared dataset with the VAE and the text encoders of a base.

    Run it again after any change: only what changed is encoded.
    """

    dataset: Path
    """folder made by sdxl-mel prepare"""
    base: str
    """diffusers folder, .safetensors file, hub id or mini"""
    out: Path
    """folder of the cache"""
    batch_pixels: Annotated[int, Show.ADVANCED] = Field(1 << 20, gt=0)
    """pixels in a batch of the VAE; less for a small card"""
    device: Annotated[str | None, Show.ADVANCED] = None
    """cpu, cuda, mps; default: what accelerate finds"""


class Verify(Encoding):
    """Check every byte of a cache and, given a dataset and a base, that it is up to date."""

    out: Path
    """folder of the cache"""
    dataset: Path | None = None
    """folder made by sdxl-mel prepare that the cache should be of"""
    base: str | None = None
    """base that the cache should be of"""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.dataset is None) != (self.base is None):
            raise ValueError("--dataset and --base go together")
        return self


class Prune(StageConfig):
    """Delete what no clip of a cache uses any more."""

    out: Path
    """folder of the cache"""


ACTIONS = {
    "build": Action(
        Build,
        """\
  sdxl-mel cache --dataset data/music --base mini --out data/music-cache
  accelerate launch -m sdxl_mel cache --dataset data/music --base stabilityai/stable-diffusion-xl-base-1.0 \\
      --vae madebyollin/sdxl-vae-fp16-fix --out data/music-cache""",
    ),
    "verify": Action(Verify, "  sdxl-mel cache verify --out data/music-cache"),
    "prune": Action(Prune, "  sdxl-mel cache prune --out data/music-cache"),
}
DEFAULT_ACTION = "build"


class Report(CacheContents):
    """What a cache holds, and what the action did."""

    action: Literal["build", "verify", "prune"]

    def summary(self) -> str:
        """Return what a person wants to know at the end."""
        has = f"{self.pictures} pictures and {self.texts} texts"
        match self.action:
            case "verify":
                left = f"; {self.unused} unused files (sdxl-mel cache prune)" if self.unused else ""
                return f"the cache is whole: {has}{left}"
            case "prune":
                return f"deleted {self.deleted} unused files, {self.freed_bytes / 1e6:.1f} MB; {has} stay"
        lines = [f"cached {has}; encoded now: {self.encoded_pictures} pictures, {self.encoded_texts} texts"]
        if self.damaged:
            lines.append(f"{self.damaged} damaged files were made anew")
        if self.unused:
            lines.append(f"{self.unused} files are no longer used; sdxl-mel cache prune deletes them")
        if self.too_long:
            lines.append(
                f"{self.too_long} captions are longer than the 77 tokens the text encoders read; the rest is unseen"
            )
        return "\n".join(lines)


def run(config: Build | Verify | Prune) -> Report:
    """Build, verify or prune a cache."""
    from sdxl_mel.dataset import cache

    match config:
        case Build():
            settings = config.settings_for(config.dataset, config.base)
            built = cache.build(config.out, settings, config.device, config.batch_pixels)
            return Report(action="build", **built.model_dump())
        case Verify():
            current = config.settings_for(config.dataset, config.base) if config.dataset and config.base else None
            return Report(action="verify", **cache.verify(config.out, current).model_dump())
        case Prune():
            return Report(action="prune", **cache.prune(config.out).model_dump())
        case _:
            assert_never(config)

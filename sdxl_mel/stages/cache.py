"""Stage `cache`: latents of every picture and embeddings of every text, computed once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig
from sdxl_mel.dataset.cache_report import Report
from sdxl_mel.errors import InputError

__all__ = ["EXAMPLES", "Config", "Report", "run"]

EXAMPLES = """\
  sdxl-mel cache --dataset data/music --base mini --out data/music-cache
  accelerate launch -m sdxl_mel cache --dataset data/music --base stabilityai/stable-diffusion-xl-base-1.0 \\
      --vae madebyollin/sdxl-vae-fp16-fix --out data/music-cache
  sdxl-mel cache verify --out data/music-cache
  sdxl-mel cache prune --out data/music-cache"""


class Config(StageConfig):
    """Encode a prepared dataset with the VAE and the text encoders of a base.

    Run it again after any change: only what changed is encoded. `verify` checks every byte of a cache (and, given
    --dataset and --base, that it is up to date); `prune` deletes what no clip uses any more.
    """

    action: Annotated[Literal["build", "verify", "prune"], Show.POSITIONAL] = "build"
    """build (default), verify or prune"""
    dataset: Path | None = None
    """folder made by sdxl-mel prepare"""
    base: str | None = None
    """diffusers folder, .safetensors file, hub id or mini"""
    out: Path
    """folder of the cache"""
    vae: str | None = None
    """another VAE: folder, .safetensors file or hub id"""
    variants: int = Field(4, ge=1)
    """wordings kept of each training caption that is a list of tags: its parts in other orders, the anchor first"""
    splits: Annotated[tuple[str, ...], Show.ADVANCED] = ()
    """splits of the dataset to encode, none = all; training never opens test"""
    clip_skip: Annotated[int, Show.ADVANCED] = Field(0, ge=0)
    """layers skipped beyond the penultimate one, which is SDXL's own (SD 1.5's "clip skip 2" is 0 here)"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """of the orders of the wordings"""
    batch_pixels: Annotated[int, Show.ADVANCED] = Field(1 << 20, gt=0)
    """pixels in a batch of the VAE; less for a small card"""
    device: Annotated[str | None, Show.ADVANCED] = None
    """cpu, cuda, mps; default: what accelerate finds"""
    base_config: Annotated[Path | None, Show.ADVANCED] = None
    """folder with the configs of a single-file base (default: the folder of its name beside it)"""


def run(config: Config) -> Report:
    """Build, verify or prune a cache."""
    from sdxl_mel.dataset.cache_build import build
    from sdxl_mel.dataset.cache_maintenance import prune, verify
    from sdxl_mel.dataset.cache_plan import Settings

    if config.action == "prune":
        return prune(config.out)
    asked = config.dataset is not None and config.base is not None
    if config.action == "build" and not asked:
        raise InputError("cache: --dataset and --base are needed; see sdxl-mel cache --help")
    settings = None
    if config.dataset is not None and config.base is not None:
        settings = Settings(
            dataset=config.dataset,
            base=config.base,
            base_config=config.base_config,
            vae=config.vae,
            variants=config.variants,
            splits=config.splits,
            clip_skip=config.clip_skip,
            seed=config.seed,
            batch_pixels=config.batch_pixels,
        )
    if config.action == "verify":
        return verify(config.out, settings)
    assert settings is not None
    return build(config.out, settings, config.device)

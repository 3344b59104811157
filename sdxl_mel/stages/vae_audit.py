"""The stage `vae-audit`: what a VAE costs, measured on your own clips before training."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.metrics.options import EmbedderName
from sdxl_mel.options import Method
from sdxl_mel.record import Record

EXAMPLES = """\
  sdxl-mel vae-audit --base mini --dataset data/music
  sdxl-mel vae-audit --base stabilityai/stable-diffusion-xl-base-1.0 --dataset data/music --clips 200
  sdxl-mel vae-audit --base sdxl.safetensors --vae madebyollin/sdxl-vae-fp16-fix --dataset data/music
  sdxl-mel vae-audit --base mini --vae runs/sound/vae --against mini --dataset data/music --embedder musicnn-msd"""


class Config(StageConfig):
    """Send pictures of a dataset through a base's VAE and report what is lost: the limit of all that is trained on it.

    Writes report.html, with the best and the worst clips and their sounds, and audit.json.
    """

    dataset: Annotated[Path, UNRECORDED]
    """folder made by sdxl-mel prepare"""
    base: Annotated[str, UNRECORDED]
    """diffusers folder, .safetensors file, hub id or mini"""
    out: Annotated[Path, UNRECORDED] = Path("runs/vae-audit")
    """folder of the report"""
    vae: Annotated[str | None, UNRECORDED] = None
    """another VAE: folder, .safetensors file or hub id"""
    against: Annotated[str | None, UNRECORDED] = None
    """VAE to compare with, as --vae; or a base, whose own VAE is meant"""
    clips: int = Field(64, ge=1)
    """clips to measure, drawn at random from the split"""
    sounds: int = Field(8, ge=1)
    """of them, clips to turn into sound, evenly from the best to the worst"""
    split: str | None = None
    """train, validation, test or regularization [the first there is of test, validation, train]"""
    embedder: EmbedderName | None = None
    """embedder that hears all clips, for FAD; none = no FAD (all clips are turned into sound for it)"""
    method: Annotated[Method, Show.ADVANCED] = "best"
    """how sound is made from pictures"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of the choice of clips and of the phases"""
    batch_pixels: Annotated[int, Show.ADVANCED, UNRECORDED] = Field(1 << 20, gt=0)
    """pixels in a batch of the VAE; less for a small card"""
    device: Annotated[str | None, Show.ADVANCED, UNRECORDED] = None
    """device of the VAE: cpu, cuda, mps [what accelerate finds]"""
    base_config: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """folder with the configs of a single-file base [the folder of its name beside it]"""


class Report(StageReport):
    """The figures over all clips, and where the report is."""

    figures: str
    page: Path

    def summary(self) -> str:
        """Return the figures and where the report is."""
        return f"{self.figures}\n{self.page}"


def run(config: Config) -> Report:
    """Measure the VAE and write the report."""
    from sdxl_mel.evaluation import vae_audit, vae_audit_page

    audit = vae_audit.audit_vae(
        config.dataset,
        config.base,
        vae_audit.Measuring(config.sounds, config.method, config.seed, config.batch_pixels, config.embedder),
        vae=config.vae,
        against=config.against,
        base_config=config.base_config,
        split=config.split,
        count=config.clips,
        device=config.device,
    )
    record = Record(stage="vae-audit", settings=config.recorded(), inputs=audit.inputs)
    names = {name: given and _shown(given) for name, given in (("vae", config.vae), ("against", config.against))}
    page = vae_audit_page.write_audit(config.out, audit, record, base=_shown(config.base), **names)
    return Report(figures=audit.text(_shown(config.against or "")), page=page)


def _shown(name: str) -> str:
    """Return a name without the folders of this machine; a hub id stays whole."""
    return Path(name).name if Path(name).exists() else name

"""Stage `vae-audit`: what the VAE costs, measured on your own clips before anyone trains."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig
from sdxl_mel.evaluation.vae_audit_report import Report
from sdxl_mel.options import Method

__all__ = ["EXAMPLES", "Config", "Report", "run"]

EXAMPLES = """\
  sdxl-mel vae-audit --base mini --dataset data/music
  sdxl-mel vae-audit --base stabilityai/stable-diffusion-xl-base-1.0 --dataset data/music --clips 200
  sdxl-mel vae-audit --base sdxl.safetensors --vae madebyollin/sdxl-vae-fp16-fix --dataset data/music"""


class Config(StageConfig):
    """Send pictures of a dataset through a base's VAE and report what is lost: the ceiling of everything trained on it.

    Writes report.html (with the best and the worst clips to see and hear) and audit.json.
    """

    dataset: Path
    """folder made by sdxl-mel prepare"""
    base: str
    """diffusers folder, .safetensors file, hub id or mini"""
    out: Path = Path("runs/vae-audit")
    """folder of the report"""
    vae: str | None = None
    """another VAE: folder, .safetensors file or hub id"""
    clips: int = Field(64, ge=1)
    """clips to measure, drawn at random from the split"""
    sounds: int = Field(8, ge=1)
    """of them, clips to turn into sound, from the best to the worst"""
    split: str | None = None
    """train, validation, test or regularization; default: the first there is of test, validation, train"""
    method: Annotated[Method, Show.ADVANCED] = "best"
    """how sound is made from pictures"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """of the choice of clips and of the phases"""
    batch_pixels: Annotated[int, Show.ADVANCED] = Field(1 << 20, gt=0)
    """pixels in a batch of the VAE; less for a small card"""
    device: Annotated[str | None, Show.ADVANCED] = None
    """cpu, cuda, mps; default: what accelerate finds"""
    base_config: Annotated[Path | None, Show.ADVANCED] = None
    """folder with the configs of a single-file base (default: the folder of its name beside it)"""


def run(config: Config) -> Report:
    """Measure the VAE and write the report."""
    from accelerate import PartialState

    from sdxl_mel.evaluation.vae_audit import choose_clips, hear_clips, measure_clips, summarise
    from sdxl_mel.evaluation.vae_audit_page import audit_page
    from sdxl_mel.files.atomic import write_json
    from sdxl_mel.files.dataset import read_dataset
    from sdxl_mel.models.base import open_base
    from sdxl_mel.record import Record
    from sdxl_mel.sound.melspec import require_equal

    dataset = read_dataset(config.dataset)
    device = config.device or str(PartialState().device)
    base = open_base(config.base, ("vae",), vae=config.vae, device=device, config=config.base_config)
    if base.spec is not None:
        require_equal(base.spec, dataset.spec, config.base, str(config.dataset))
    split, items = choose_clips(dataset, config.split, config.clips, config.seed)
    clips = measure_clips(base.vae, dataset, items, config.batch_pixels)
    heard = hear_clips(clips, dataset.spec, config.sounds, config.method, config.seed)
    record = Record(
        stage="vae-audit",
        settings={"clips": config.clips, "split": split, "method": config.method, "seed": config.seed},
        inputs=base.identity,
    )
    page = config.out / "report.html"
    report = summarise(clips, heard, count=config.sounds, spec=dataset.spec, page=page, split=split)
    audit_page(
        report, clips, heard, dataset.spec, base=_shown(config.base), vae=config.vae and _shown(config.vae)
    ).write(page)
    shown = report.model_dump(mode="json", exclude={"skipped", "page"})
    write_json(config.out / "audit.json", shown | {"record": record.model_dump(mode="json")})
    return report


def _shown(name: str) -> str:
    """Return a name without the folders of this machine; a hub id stays whole."""
    return Path(name).name if Path(name).exists() else name

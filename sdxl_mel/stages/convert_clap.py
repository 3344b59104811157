"""The stage `convert-clap`: one of LAION's CLAP checkpoints into a folder that `evaluate --clap` reads."""

from pathlib import Path
from typing import Annotated

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError

EXAMPLES = """\
  sdxl-mel convert-clap music_audioset_epoch_15_esc_90.14.pt --out clap-music
  sdxl-mel evaluate --generated out/ --reference real/ --clap clap-music --out eval"""


class Config(StageConfig):
    """Convert LAION's pickled CLAP checkpoint to safetensors, once; it is read without running what is in it."""

    checkpoint: Annotated[Path, Show.POSITIONAL]
    """LAION's .pt file"""
    out: Path
    """folder to write; must not exist or be empty"""
    tokenizer: str = "roberta-base"
    """folder or hub id with RoBERTa's tokenizer, which the checkpoint does not contain"""


class Report(StageReport):
    """How many tensors were converted."""

    tensors: int
    out: Path

    def summary(self) -> str:
        """Return what was written and how it is used."""
        return f"{self.out}: {self.tensors} tensors; use it with --clap {self.out}"


def run(config: Config) -> Report:
    """Convert a checkpoint."""
    from sdxl_mel.metrics.embedders.laion_checkpoint import convert

    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise InputError(f"{config.out}: is there already and is not an empty folder; choose another --out")
    return Report(tensors=convert(config.checkpoint, config.out, config.tokenizer), out=config.out)

"""Stage `train`: a cache becomes a LoRA."""

from sdxl_mel.config import StageReport
from sdxl_mel.files.run import LORA_NAME
from sdxl_mel.training.settings import Config

__all__ = ["EXAMPLES", "Config", "Report", "run"]

EXAMPLES = """\
  accelerate launch train_lora.py --config configs/sdxl-24gb.toml --base BASE --cache data/music-cache --out runs/music
  accelerate launch train_lora.py --config runs/music/config.toml --resume
  sdxl-mel train --base mini --cache data/demo-cache --out runs/demo --steps 300 --batch 16 --optimizer.rate 1e-3
  sdxl-mel train --config configs/sdxl-12gb.toml --base BASE --cache data/music-cache --out runs/music --dry-run"""


class Report(StageReport):
    """Where the LoRA is and what the run came to."""

    folder: str
    results: dict[str, object] = {}
    dry: bool = False

    def summary(self) -> str:
        """Return the results, one a line."""
        if self.dry:
            return "dry run: nothing was trained"
        lines = [
            f"{name}: {' -> '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in self.results.items()
        ]
        return "\n".join([*lines, f"the LoRA is in {self.folder}"])


def run(config: Config) -> Report:
    """Train, or resume, or only print what would be done."""
    from sdxl_mel.training.run import train_lora

    results = train_lora(config)
    return Report(folder=str(config.out / LORA_NAME), results=results or {}, dry=results is None)

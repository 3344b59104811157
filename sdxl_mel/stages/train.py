"""Stage `train`: a cache becomes a LoRA, or another of the tasks is trained."""

from sdxl_mel.config import StageReport
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.settings import TrainingConfig
from sdxl_mel.training.tasks import TASKS

__all__ = ["ACTIONS", "CHOSEN_BY", "DEFAULT_ACTION", "Config", "Report", "run"]

ACTIONS = {name: row.action for name, row in TASKS.items()}
DEFAULT_ACTION = "lora"
CHOSEN_BY = "task"


class Report(StageReport):
    """Where the result is and what the run came to."""

    makes: str
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
        return "\n".join([*lines, f"the {self.makes} is in {self.folder}"])


def run(config: TrainingConfig) -> Report:
    """Train, or resume, or only print what would be done."""
    row = TASKS[config.task]
    results = row.load()(config)
    return Report(makes=row.makes, folder=str(config.out / row.result), results=results or {}, dry=results is None)

"""What `train` can train: the table of its tasks, read without torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import JsonValue

from sdxl_mel.arguments import Action
from sdxl_mel.files.run import LORA_NAME
from sdxl_mel.training import lora_settings, steps_settings
from sdxl_mel.training.settings import TaskName, TrainingConfig


class Row(NamedTuple):
    """A task: its settings, the function that trains with them, what it makes and where in the folder of the run.

    The function, `module:name`, is given the settings and returns what the run came to, None for a dry run.
    """

    settings: type[TrainingConfig]
    engine: str
    makes: str
    result: str
    examples: str

    @property
    def action(self) -> Action:
        """Return what the command line needs of it."""
        return Action(self.settings, self.examples)

    def load(self) -> Callable[[Any], dict[str, JsonValue] | None]:
        """Import the function."""
        module, _, name = self.engine.partition(":")
        function: Callable[[Any], dict[str, JsonValue] | None] = getattr(import_module(module), name)
        return function


TASKS: Mapping[TaskName, Row] = {
    "lora": Row(
        lora_settings.Config,
        "sdxl_mel.training.lora_run:train_lora",
        "LoRA",
        LORA_NAME,
        """\
  accelerate launch train_lora.py --config configs/sdxl-24gb.toml --base BASE --cache data/music-cache --out runs/music
  accelerate launch train_lora.py --config runs/music/config.toml --resume
  sdxl-mel train --base mini --cache data/demo-cache --out runs/demo --steps 300 --batch 16 --optimizer.rate 1e-3
  sdxl-mel train --config configs/sdxl-12gb.toml --base BASE --cache data/music-cache --out runs/music --dry-run""",
    ),
    "steps": Row(
        steps_settings.Config,
        "sdxl_mel.training.steps_task:train_steps",
        "step adapter",
        LORA_NAME,
        """\
  sdxl-mel train --task steps --base mini --trajectories data/mini-trajectories --out runs/steps
  accelerate launch train_lora.py --config configs/steps-24gb.toml --base BASE --trajectories data/ways --out runs/ways
  sdxl-mel train --config runs/steps/config.toml --resume""",
    ),
}

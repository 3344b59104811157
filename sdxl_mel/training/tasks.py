"""What `train` can train: the table of its tasks, read without torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import JsonValue

from sdxl_mel.arguments import Action
from sdxl_mel.files.run import BASE_NAME, LORA_NAME, REFINER_NAME, SMALL_DECODER_NAME, VAE_NAME
from sdxl_mel.training import (
    decoder_settings,
    lora_settings,
    refiner_settings,
    small_decoder_settings,
    steps_settings,
    student_settings,
    text_encoder_settings,
)
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
        "sdxl_mel.training.steps_run:train_steps",
        "step adapter",
        LORA_NAME,
        """\
  sdxl-mel train --task steps --base mini --trajectories data/mini-trajectories --out runs/steps
  accelerate launch train_lora.py --config configs/steps-24gb.toml --base BASE --trajectories data/ways --out runs/ways
  sdxl-mel train --config runs/steps/config.toml --resume""",
    ),
    "student": Row(
        student_settings.Config,
        "sdxl_mel.training.student_run:train_student",
        "base with a smaller UNet",
        BASE_NAME,
        """\
  accelerate launch train_lora.py --task student --config configs/students/sdxl-330m.toml --base BASE \\
    --cache data/music-cache --out runs/student
  sdxl-mel train --task student --base mini --cache data/demo-cache --out runs/student --student.middle false""",
    ),
    "text-encoder": Row(
        text_encoder_settings.Config,
        "sdxl_mel.training.text_encoder_run:train_text_encoder",
        "base with smaller text encoders",
        BASE_NAME,
        """\
  sdxl-mel train --task text-encoder --base BASE --cache data/music-cache --out runs/words --encoder.layers 2 4
  sdxl-mel train --task text-encoder --base mini --cache data/demo-cache --out runs/words --encoder.layers 2 2""",
    ),
    "small-decoder": Row(
        small_decoder_settings.Config,
        "sdxl_mel.training.small_decoder_run:train_small_decoder",
        "small decoder",
        SMALL_DECODER_NAME,
        """\
  sdxl-mel train --task small-decoder --base BASE --cache data/music-cache --out runs/decoder
  sdxl-mel train --task small-decoder --config configs/mini-small-decoder.toml --base mini --cache data/demo-cache \\
    --out runs/decoder""",
    ),
    "decoder": Row(
        decoder_settings.Config,
        "sdxl_mel.training.decoder_run:train_decoder",
        "VAE with the trained decoder",
        VAE_NAME,
        """\
  sdxl-mel train --task decoder --config configs/decoder-24gb.toml --base BASE --dataset data/music \
    --cache data/music-cache --out runs/sound
  sdxl-mel train --task decoder --config configs/mini-decoder.toml --base mini --dataset data/demo \
    --cache data/demo-cache --out runs/sound""",
    ),
    "refiner": Row(
        refiner_settings.Config,
        "sdxl_mel.training.refiner_run:train_refiner",
        "refiner",
        REFINER_NAME,
        """\
  sdxl-mel train --task refiner --base BASE --dataset data/music --cache data/music-cache --out runs/refiner
  sdxl-mel train --task refiner --config configs/mini-refiner.toml --base mini --dataset data/demo \\
    --cache data/demo-cache --out runs/refiner""",
    ),
}

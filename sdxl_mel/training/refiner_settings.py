"""The settings of training a refiner."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.redrawn_settings import RedrawnSettings
from sdxl_mel.training.settings import (
    AtLeastOne,
    Chance,
    ChosenTask,
    Count,
    OptimizerSettings,
    Positive,
    Share,
    TrainingConfig,
)

Width = Annotated[int, Field(ge=4)]


class RefinerSettings(Settings):
    """The refiner."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=3)] = (32, 64, 128)
    """its widths from the picture inwards: at half the size of the picture, a quarter, an eighth"""
    blocks: Count = 1
    """residual blocks of each level, on the way in and again on the way out"""
    middle: AtLeastOne = 2
    """residual blocks of the last level"""
    draw_steps: AtLeastOne = 2
    """steps in which it refines where none are stated, two calls each"""
    churn: Chance = 0.0
    """share of its time by which a step begins earlier, with new noise, 0 = none"""


class RefinerOptimizerSettings(OptimizerSettings):
    """How weights are moved."""

    rate: Positive = 1e-3
    """learning rate (1 for prodigy)"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """decay of the weights"""
    warmup: Count = 50
    """steps of linear warm-up"""


class Config(TrainingConfig):
    """Train a refiner: a small network that restores what the VAE smoothed in a picture, in a few steps of a flow."""

    task: ChosenTask = "refiner"
    dataset: Annotated[Path, UNRECORDED, Before("out")]
    """dataset of the cache: its tiles are what is restored"""
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made of it"""
    pairs: Annotated[Path | None, UNRECORDED, Before("trackers")] = None
    """folder of decoded pictures, which several runs may share; none = pairs/ in the run's"""
    vae: Annotated[str | None, UNRECORDED, Before("trackers")] = None
    """VAE that replaces the base's own (as in the cache)"""
    starts: Annotated[Share, Before("trackers")] = 0.25
    """share of examples at the start of the flow, where the first step of every drawing is"""
    refiner: Annotated[RefinerSettings, Before("optimizer")] = RefinerSettings()
    redrawn: Annotated[RedrawnSettings, Before("optimizer")] = RedrawnSettings()
    optimizer: RefinerOptimizerSettings = RefinerOptimizerSettings()

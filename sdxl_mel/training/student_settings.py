"""The settings of training a smaller UNet."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.lora_settings import DataSettings, NoiseSettings, Posterior, TimestepSettings
from sdxl_mel.training.settings import AtLeastOne, ChosenTask, OptimizerSettings, Positive, Share, TrainingConfig

Weight = Annotated[float, Field(ge=0)]


class StudentSettings(Settings):
    """The smaller UNet."""

    block_out_channels: tuple[AtLeastOne, ...] | None = None
    """its widths from the picture inwards; none = the teacher's"""
    layers_per_block: AtLeastOne | None = None
    """residual layers and transformers of a block; none = as many as the teacher's"""
    transformer_layers_per_block: tuple[AtLeastOne, ...] | None = None
    """layers of the transformers of each level; none = as many as the teacher's"""
    middle: bool = True
    """keep the block between the way in and the way out"""
    init: Literal["teacher", "random"] = "teacher"
    """start from the teacher's weights that matter most, or from random ones, to compare"""


class StudentLossSettings(Settings):
    """What is minimised: the squared error against the teacher's predictions, with the caption and with none."""

    guided: Weight = 0.1
    """weight of the error of the guided prediction, which is what is drawn with"""
    guidance: Positive | None = None
    """its guidance; none = what the base says is good"""
    features: Weight = 0.1
    """weight of the relative error of the self-attentions' outputs (KOALA)"""


class StudentOptimizerSettings(OptimizerSettings):
    """How weights are moved."""

    rate: Positive = 1e-4
    """learning rate (1 for prodigy)"""


class Config(TrainingConfig):
    """Distil a smaller UNet from a base's own, pruned by what matters in it; the result is a base folder."""

    task: ChosenTask = "student"
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made"""
    trajectories: Annotated[Path | None, UNRECORDED, Before("out")] = None
    """trajectories that sdxl-mel trajectories drew with this base: learnt are points of them too"""
    drawn: Annotated[Share, Before("trackers")] = 0.5
    """share of examples that are points of the trajectories, where there are any"""
    caption_variants: Annotated[AtLeastOne | None, Before("trackers")] = None
    """how many of each clip's cached wordings are used, none = all"""
    posterior: Annotated[Posterior, Before("trackers")] = "sample"
    """draw each latent anew from what the VAE says of the picture, or take its mean"""
    vae: Annotated[str | None, UNRECORDED, Before("trackers")] = None
    """VAE that replaces the base's own (as in the cache)"""
    student: Annotated[StudentSettings, Before("optimizer")] = StudentSettings()
    optimizer: StudentOptimizerSettings = StudentOptimizerSettings()
    loss: Annotated[StudentLossSettings, Before("averages")] = StudentLossSettings()
    noise: Annotated[NoiseSettings, Before("averages")] = NoiseSettings()
    timesteps: Annotated[TimestepSettings, Before("averages")] = TimestepSettings()

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example; no caption is dropped, as each is learnt beside the empty one."""
        return self.picked(DataSettings, caption_dropout=0.0)

"""The settings of training smaller text encoders."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.settings import ChosenTask, OptimizerSettings, Positive, Share, TrainingConfig

Layers = Annotated[int, Field(ge=2)]


class EncoderSettings(Settings):
    """The smaller text encoders."""

    layers: tuple[Layers, ...] | None = None
    """layers of each text encoder; none = a quarter of its own, at least 2"""
    vocabulary: Literal["captions", "all"] = "captions"
    """tokens that stay: those of the captions and all bytes (other words are spelt out), or all"""


class EncoderLossSettings(Settings):
    """What is minimised: the squared error of the embeddings, each channel in units of its own variance."""

    pooled: Annotated[float, Field(ge=0)] = 1.0
    """weight of the pooled embeddings beside those of the tokens"""


class EncoderOptimizerSettings(OptimizerSettings):
    """How weights are moved."""

    rate: Positive = 3e-4
    """learning rate (1 for prodigy)"""


class Config(TrainingConfig):
    """Distil smaller text encoders over the captions of a cache; the result is a base folder."""

    task: ChosenTask = "text-encoder"
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made"""
    prompts: Annotated[Path | None, UNRECORDED, Before("out")] = None
    """file of prompts that are learnt as well, in the forms that generate reads"""
    mixed: Annotated[Share, Before("trackers")] = 0.5
    """share of captions that are tags of two captions, some left out, in a new order"""
    encoder: Annotated[EncoderSettings, Before("optimizer")] = EncoderSettings()
    optimizer: EncoderOptimizerSettings = EncoderOptimizerSettings()
    loss: Annotated[EncoderLossSettings, Before("averages")] = EncoderLossSettings()

"""The settings of training a small decoder."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.lora_settings import DataSettings
from sdxl_mel.training.settings import AtLeastOne, ChosenTask, Count, OptimizerSettings, Positive, Share, TrainingConfig

Width = Annotated[int, Field(ge=4)]
Strength = Annotated[float, Field(ge=0)]


class DecoderSettings(Settings):
    """The small decoder."""

    block_out_channels: tuple[Width, Width, Width, Width] = (32, 64, 128, 256)
    """its widths from the picture inwards; the default has 6 % of the arithmetic of SDXL's 128 256 512 512"""
    layers_per_block: Count = 0
    """residual layers of each level beyond the first; VAEs of SDXL have 2"""
    attention: bool = True
    """keep the attention in its middle"""


class DecoderLossSettings(Settings):
    """What is minimised: the absolute error against the picture that the VAE's own decoder makes."""

    slopes: Strength = 0.5
    """weight of the error of differences between neighbours in time and in frequency"""


class DecoderOptimizerSettings(OptimizerSettings):
    """How weights are moved."""

    rate: Positive = 1e-3
    """learning rate (1 for prodigy)"""
    weight_decay: Strength = 0.0
    """decay of the weights"""
    warmup: Count = 30
    """steps of linear warm-up"""


class Config(TrainingConfig):
    """Distil a small decoder from a VAE's own, for previews and for the browser; encoder and latents stay."""

    task: ChosenTask = "small-decoder"
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made"""
    trajectories: Annotated[Path | None, UNRECORDED, Before("out")] = None
    """trajectories that sdxl-mel trajectories drew with this base: learnt are their ends too"""
    drawn: Annotated[Share, Before("trackers")] = 0.5
    """share of examples that are points of the trajectories, where there are any"""
    batch: AtLeastOne = 4
    """examples of one optimizer step, over all devices"""
    vae: Annotated[str | None, UNRECORDED, Before("trackers")] = None
    """VAE that replaces the base's own (as in the cache)"""
    latent_noise: Annotated[Strength, Before("trackers")] = 0.1
    """most noise that is added to latents of unit scale, so that drawn ones are covered"""
    decoder: Annotated[DecoderSettings, Before("optimizer")] = DecoderSettings()
    optimizer: DecoderOptimizerSettings = DecoderOptimizerSettings()
    loss: Annotated[DecoderLossSettings, Before("averages")] = DecoderLossSettings()

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example."""
        return self.picked(DataSettings)

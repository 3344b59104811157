"""The settings of training a VAE's decoder."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.lora_settings import DataSettings, Posterior
from sdxl_mel.training.settings import AtLeastOne, ChosenTask, Count, OptimizerSettings, Positive, TrainingConfig

Strength = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=4)]


class PictureLossSettings(Settings):
    """What is minimised: absolute errors in levels, and what follows, weighted."""

    dark: Annotated[float, Field(ge=1)] = 3.0
    """how many times heavier errors may be where it is dark and a level is more decibels; 1 = levels alone"""
    spectral: Strength = 0.5
    """weight of the differences of 2-D spectra, which ask for texture of the right energy"""
    logarithms: Strength = 4.0
    """of these, weight of the logarithms of magnitudes"""
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (8, 16, 32, 64)
    """windows of the spectra, in pixels"""
    level: Strength = 1.0
    """weight of the mean error of each band over time, which holds levels"""


class VaeOptimizerSettings(OptimizerSettings):
    """How weights are moved."""

    rate: Positive = 1e-4
    """learning rate (1 for prodigy)"""
    weight_decay: Strength = 0.0
    """decay of the weights"""
    warmup: Count = 30
    """steps of linear warm-up"""


class Config(TrainingConfig):
    """Train the decoder of a base's VAE on spectrograms; encoder and latents stay, so caches and LoRAs stay valid."""

    task: ChosenTask = "decoder"
    dataset: Annotated[Path, UNRECORDED, Before("out")]
    """folder made by sdxl-mel prepare"""
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made of it"""
    batch: AtLeastOne = 4
    """examples of one optimizer step, over all devices"""
    posterior: Annotated[Posterior, Before("trackers")] = "sample"
    """draw each latent anew from what the VAE says of the picture, or take its mean"""
    vae: Annotated[str | None, UNRECORDED, Before("trackers")] = None
    """VAE that replaces the base's own (as in the cache)"""
    crop: Annotated[AtLeastOne | None, Before("trackers")] = None
    """frames of a tile that are decoded at once, a multiple of 8; none = all, which is what norms meet later"""
    latent_noise: Annotated[Strength, Before("trackers")] = 0.05
    """most noise that is added to latents of unit scale"""
    optimizer: VaeOptimizerSettings = VaeOptimizerSettings()
    loss: Annotated[PictureLossSettings, Before("averages")] = PictureLossSettings()

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        from sdxl_mel.sound.melspec import LATENT_FACTOR  # brings numpy, for which a help need not wait

        if self.crop is not None and (self.crop % LATENT_FACTOR or self.crop < max(self.loss.sizes) * 3 // 2):
            least = -(-max(self.loss.sizes) * 3 // 2 // LATENT_FACTOR) * LATENT_FACTOR
            raise ValueError(
                f"crop: found {self.crop}; expected a multiple of {LATENT_FACTOR}, at least {least}, for windows of "
                f"{max(self.loss.sizes)} pixels"
            )
        return self

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example."""
        return self.picked(DataSettings)

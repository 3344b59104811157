"""The settings of training a VAE's decoder."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.training.lora_settings import DataSettings, Posterior
from sdxl_mel.training.optimizers import OPTIMIZERS
from sdxl_mel.training.redrawn_settings import RedrawnSettings
from sdxl_mel.training.settings import (
    AtLeastOne,
    ChosenTask,
    Count,
    OptimizerSettings,
    Positive,
    Share,
    TrainingConfig,
)

Strength = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=4)]
LEAST_SEEN = 16
"""Frames of which a discriminator says anything."""


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


class AdversarialSettings(Settings):
    """A discriminator, for pictures of latents that the base drew: what they should be nobody knows."""

    weight: Strength = 0.0
    """weight of the discriminator's answers, 0 = none, and nothing is drawn"""
    rate: Positive = 8e-4
    """the discriminator's learning rate"""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of examples whose latents the base drew"""
    warmup: Count = 50
    """steps in which it learns and the decoder does not follow it yet"""
    hold: Strength = 1.0
    """weight of changes in the mean of each 8 x 8 pixels, beside the decoder as it was"""


class DecoderRedrawnSettings(RedrawnSettings):
    """Latents that the base drew anew from a noise level, where adversarial.weight is above 0."""

    share: Share = 0.2
    """share of clips that are drawn anew"""
    low: Share = 0.4
    """lowest noise level from which they are drawn, 0 = clean to 1 = noise"""
    high: Share = 1.0
    """highest noise level"""


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
    redrawn_latents: Annotated[Path | None, UNRECORDED, Before("trackers")] = None
    """folder of latents that the base drew, which several runs may share; none = redrawn_latents/ in the run's"""
    optimizer: VaeOptimizerSettings = VaeOptimizerSettings()
    loss: Annotated[PictureLossSettings, Before("averages")] = PictureLossSettings()
    adversarial: Annotated[AdversarialSettings, Before("averages")] = AdversarialSettings()
    redrawn: Annotated[DecoderRedrawnSettings, Before("averages")] = DecoderRedrawnSettings()

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        from sdxl_mel.sound.melspec import LATENT_FACTOR  # brings numpy, for which a help need not wait

        seen = max(max(self.loss.sizes) * 3 // 2, LEAST_SEEN if self.adversarial.weight else 0)
        if self.crop is not None and (self.crop % LATENT_FACTOR or self.crop < seen):
            least = -(-seen // LATENT_FACTOR) * LATENT_FACTOR
            raise ValueError(
                f"crop: found {self.crop}; expected a multiple of {LATENT_FACTOR}, at least {least}, for windows of "
                f"{max(self.loss.sizes)} pixels"
            )
        return self

    @model_validator(mode="after")
    def _two_rates(self) -> Self:
        if self.adversarial.weight and OPTIMIZERS[self.optimizer.name].finds_its_rate:
            raise ValueError(
                f"adversarial.weight: optimizer {self.optimizer.name!r} finds one rate for all that is trained, and a "
                "discriminator has its own; give another optimizer, or weight 0"
            )
        return self

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example."""
        return self.picked(DataSettings)

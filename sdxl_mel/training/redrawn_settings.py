"""The settings of latents that a base draws anew, for tasks that learn from what a UNet makes."""

from typing import Self

from pydantic import model_validator

from sdxl_mel.config import Settings
from sdxl_mel.training.settings import AtLeastOne, Positive, Share


class RedrawnSettings(Settings):
    """Latents that the base drew anew from a noise level, as they will be met when it draws."""

    share: Share = 0.5
    """share of clips that are drawn anew; the others are what the VAE makes of their own latents"""
    low: Share = 0.2
    """lowest noise level from which they are drawn, 0 = clean to 1 = noise"""
    high: Share = 0.4
    """highest noise level; above it a picture does not say any more what its clip says"""
    steps: AtLeastOne = 10
    """steps of a whole drawing, of which a level takes its share"""
    sampler: str = "dpmpp_2m"
    """their sampler"""
    guidance: Positive | None = None
    """their guidance; none = what the base says is good"""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if round(self.low * self.steps) < 1:
            raise ValueError(f"low {self.low:g} of {self.steps} steps leaves none; give more of either")
        return self

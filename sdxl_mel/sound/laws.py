"""Pixel laws: how a mel value becomes a picture value in 0..1, and back.

A new law is a class here and a member of `Law`. Nothing else asks which law a picture has.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sdxl_mel.arrays import Float

Quantity = Literal["amplitude", "power"]
"""What a mel value is a weighted sum of: the magnitudes of the STFT, or their squares."""

SMALLEST_RATIO = 1e-10
"""Of the maximum; keeps silence out of the logarithm."""
DECIBELS_PER_DECADE: dict[Quantity, float] = {"amplitude": 20.0, "power": 10.0}


class PixelLaw(BaseModel, ABC):
    """A monotone law: `values` and `mel` are inverse to each other where values are in 0..1.

    `relative_to_maximum` laws count mel values in units of a picture's own maximum, so that a picture does not say how
    loud its sound was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    relative_to_maximum: ClassVar[bool] = False

    @property
    def dark_is_loud(self) -> bool:
        """Return whether values fall as mel values rise."""
        return False

    @abstractmethod
    def values(self, mel: Float, quantity: Quantity) -> Float:
        """Return the picture values of mel values; beyond the law's range they may leave 0..1."""

    @abstractmethod
    def mel(self, values: Float, quantity: Quantity) -> Float:
        """Return the mel values of picture values in 0..1."""


class Log1pLaw(PixelLaw):
    """The law of our own format: linear where it is quiet, logarithmic above reference / mu."""

    kind: Literal["log1p"] = "log1p"
    mu: float = Field(1000.0, ge=1e-3, le=1e6)
    reference: float = Field(0.5, ge=1e-6, le=1e6)

    def values(self, mel: Float, quantity: Quantity) -> Float:
        """Return log1p(mu A / reference) / log1p(mu)."""
        return np.log1p(self.mu / self.reference * mel) / math.log1p(self.mu)

    def mel(self, values: Float, quantity: Quantity) -> Float:
        """Return reference expm1(value log1p(mu)) / mu."""
        return np.expm1(values * math.log1p(self.mu)) * (self.reference / self.mu)


class DecibelLaw(PixelLaw):
    """Decibels of power over the picture's own maximum, between a floor and a ceiling."""

    relative_to_maximum: ClassVar[bool] = True
    kind: Literal["decibel"] = "decibel"
    floor_db: float = Field(-80.0, ge=-300, lt=-10)
    ceiling_db: float = Field(0.0, ge=-10, le=100)

    def values(self, mel: Float, quantity: Quantity) -> Float:
        """Return (dB - floor_db) / (ceiling_db - floor_db), the mel values being relative to the maximum."""
        ratio = np.maximum(mel, np.float32(SMALLEST_RATIO))
        decibels = np.asarray(np.float32(DECIBELS_PER_DECADE[quantity]) * np.log10(ratio), dtype=np.float32)
        return (decibels - self.floor_db) / (self.ceiling_db - self.floor_db)

    def mel(self, values: Float, quantity: Quantity) -> Float:
        """Return the mel values, the maximum being 1 at 0 dB."""
        decibels = values * (self.ceiling_db - self.floor_db) + self.floor_db
        return 10.0 ** (decibels / DECIBELS_PER_DECADE[quantity])


class PowerLaw(PixelLaw):
    """A power of the mel value over a fixed reference; `inverted` pictures are dark where it is loud."""

    kind: Literal["power"] = "power"
    exponent: float = Field(0.25, ge=0.05, le=20)
    reference: float = Field(1.0, ge=1e-6, le=1e6)
    inverted: bool = False

    @property
    def dark_is_loud(self) -> bool:
        """Return `inverted`."""
        return self.inverted

    def values(self, mel: Float, quantity: Quantity) -> Float:
        """Return (A / reference) ** exponent, or 1 minus that."""
        value = np.clip(mel / self.reference, 0.0, 1.0) ** self.exponent
        return 1.0 - value if self.inverted else value

    def mel(self, values: Float, quantity: Quantity) -> Float:
        """Return reference value ** (1 / exponent)."""
        value = 1.0 - values if self.inverted else values
        return self.reference * value ** (1.0 / self.exponent)


class LogLaw(PixelLaw):
    """The logarithm of the mel value between a fixed floor and ceiling."""

    kind: Literal["log"] = "log"
    floor: float = Field(1e-5, ge=1e-15, lt=1)
    ceiling: float = Field(200.0, ge=1, le=1e6)

    def values(self, mel: Float, quantity: Quantity) -> Float:
        """Return (ln A - ln floor) / (ln ceiling - ln floor)."""
        clipped = np.clip(mel, self.floor, self.ceiling)
        return np.log(clipped / self.floor) / math.log(self.ceiling / self.floor)

    def mel(self, values: Float, quantity: Quantity) -> Float:
        """Return floor (ceiling / floor) ** value."""
        return self.floor * (self.ceiling / self.floor) ** values


Law = Annotated[Log1pLaw | DecibelLaw | PowerLaw | LogLaw, Field(discriminator="kind")]

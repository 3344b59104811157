"""LoRAs as an instrument: each with a scale, an interval of noise levels in which it acts, and a choice of layers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sdxl_mel.errors import InputError
from sdxl_mel.models.lora.scaled import ScaledLora

Interval = tuple[float, float]
Layers = Literal["content", "style"]
ALWAYS: Interval = (0.0, 1.0)
BLOCKS: Mapping[Layers, str] = {"content": "up_blocks.0.attentions.0.", "style": "up_blocks.0.attentions.1."}
"""The blocks of SDXL's UNet in which a LoRA holds what is shown, and how (B-LoRA, arXiv 2403.14572)."""
PATTERN = re.compile(r"(?P<file>.+?)(?:@(?P<low>[\d.]+)-(?P<high>[\d.]+))?(?:#(?P<layers>[a-z]+))?")


@dataclass(frozen=True)
class Acting:
    """When a LoRA acts, in noise levels from 0 = clean to 1 = noise, and in which layers (None = in all)."""

    interval: Interval = ALWAYS
    layers: Layers | None = None

    def acts_at(self, level: float) -> bool:
        """Return whether it acts at a noise level; at the very end of the interval only where that is 1."""
        low, high = self.interval
        return low <= level < high or level == high == 1.0


def parse_acting(text: str) -> tuple[str, Acting]:
    """Return what `FILE:0.8@0.3-1#style` says: the file with its scale, and when and where it acts.

    Raises InputError for an interval or layers that are not there.
    """
    match = PATTERN.fullmatch(text)
    if match is None:
        return text, Acting()
    layers = match["layers"]
    known = get_args(Layers)
    if layers is not None and layers not in known:
        raise InputError(f"--lora {text}: unknown layers {layers!r}; known: {', '.join(known)}")
    try:
        interval = ALWAYS if match["low"] is None else (float(match["low"]), float(match["high"]))
    except ValueError as error:
        raise InputError(f"--lora {text}: write the noise levels as @0.3-1") from error
    if not 0 <= interval[0] < interval[1] <= 1:
        raise InputError(f"--lora {text}: the noise levels of an interval are 0 <= LOW < HIGH <= 1, such as @0.3-1")
    return match["file"], Acting(interval, next((each for each in known if each == layers), None))


def chosen_layers(lora: ScaledLora, layers: Layers | None) -> ScaledLora:
    """Return a LoRA with the changes of some layers alone. Raises InputError where it has none there."""
    if layers is None:
        return lora
    kept = lora.lora.only(lambda part, path: part == "unet" and path.startswith(BLOCKS[layers]))
    if not any(kept.changes()):
        raise InputError(f"{lora.path}: has no {layers} layers ({BLOCKS[layers]}*); leave #{layers} out")
    return lora._replace(lora=kept)


def without_unet(lora: ScaledLora) -> ScaledLora:
    """Return a LoRA with its changes of text encoders alone."""
    return lora._replace(lora=lora.lora.only(lambda part, _: part != "unet"))

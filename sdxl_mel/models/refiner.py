"""A refiner: a small network that restores what a VAE smoothed in a picture; a base may carry one beside its VAE.

It is a rectified flow (`diffusion.flow`) from noise to what is missing, in units of its spread at each level of
brightness, and is told the decoded picture. No layer of it sees the whole picture, as norms and attention would: a
place depends on its surroundings alone, so windows of a long picture agree and time can be a circle.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sdxl_mel.diffusion.flow import Fresh, flow
from sdxl_mel.errors import InputError
from sdxl_mel.files.run import REFINER_NAME
from sdxl_mel.models.base import Base
from sdxl_mel.models.carried import CarriedModel, read_carried

LEVELS = 256
PATCH = 2
TIME_FEATURES = 32
TIME_WIDTH = 64
HIGHEST_FREQUENCY = 50.0
"""Radians over the whole flow: the finest difference between two times that is seen is about a fiftieth."""


class Refiner(CarriedModel):
    """Says where a state moves that lies between noise and what a decoded picture misses.

    `channels` are the picture's, 1 or 3; `widths` those of the layers from the picture inwards, each level at half the
    size of the one before, the first at half the picture's; `blocks` the residual blocks of each level on the way in
    and on the way out, `middle` those of the last. `draw_steps` are the steps in which it refines where none are
    stated, `churn` by how much each begins earlier (see `diffusion.flow`). `vae` is the SHA-256 of the VAE whose
    pictures it refines.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 1,
        middle: int = 2,
        draw_steps: int = 2,
        churn: float = 0.0,
        vae: str = "",
    ) -> None:
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.register_buffer("spread", torch.ones(LEVELS))
        self.time = nn.Linear(TIME_FEATURES, TIME_WIDTH)
        self.conv_in = nn.Conv2d(PATCH**2 * (2 * channels + 1), widths[0], 3, padding=1)
        self.inwards = nn.ModuleList(_blocks(width, blocks) for width in widths[:-1])
        self.halving = nn.ModuleList(nn.Conv2d(outer, inner, 2, stride=2) for outer, inner in pairs)
        self.inmost = _blocks(widths[-1], middle)
        self.doubling = nn.ModuleList(nn.Conv2d(inner, 4 * outer, 1) for outer, inner in pairs)
        self.outwards = nn.ModuleList(_blocks(width, blocks) for width in widths[:-1])
        self.conv_out = _zero(nn.Conv2d(widths[0], PATCH**2 * channels, 3, padding=1))

    def forward(self, pictures: Tensor, states: Tensor, times: Tensor) -> Tensor:
        """Return velocities (batch, channels, height, width) of states at times 0..1, (batch,).

        `pictures` are images in -1..1; `states` have their shape.
        """
        rows = torch.linspace(-1, 1, pictures.shape[2], device=pictures.device, dtype=pictures.dtype)
        band = rows.view(1, 1, -1, 1).expand(len(pictures), 1, -1, pictures.shape[3])
        time = F.silu(self.time(_time_features(times)))
        x = self.conv_in(F.pixel_unshuffle(torch.cat([pictures, states, band], dim=1), PATCH))
        kept = []
        for level, halving in zip(self.inwards, self.halving):
            x = _through(level, x, time)
            kept.append(x)
            x = halving(x)
        x = _through(self.inmost, x, time)
        for place in reversed(range(len(kept))):
            x = kept[place] + F.pixel_shuffle(self.doubling[place](x), 2)
            x = _through(self.outwards[place], x, time)
        return F.pixel_shuffle(self.conv_out(F.silu(x)), PATCH)

    def spread_in(self, pictures: Tensor) -> Tensor:
        """Return how much is missing at each place of pictures, images in -1..1, as a rule: a standard deviation."""
        found: Tensor = self.spread[levels_of(pictures)]
        return found


class Block(nn.Module):
    """A residual block of two convolutions, scaled and shifted by the time between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = _zero(nn.Linear(TIME_WIDTH, 2 * width))
        self.second = _zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return x and what is added to it, (batch, width, height, width); `time` is (batch, TIME_WIDTH)."""
        scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
        inner = self.first(F.silu(x)) * (1 + scale) + shift
        added: Tensor = self.second(F.silu(inner))
        return x + added


def levels_of(pictures: Tensor) -> Tensor:
    """Return the levels 0..255 of images in -1..1."""
    return ((pictures + 1) * ((LEVELS - 1) / 2)).round().clamp(0, LEVELS - 1).long()


def new_refiner(
    channels: int, widths: Sequence[int], blocks: int, middle: int, *, draw_steps: int, churn: float, vae: str
) -> Refiner:
    """Return a refiner of random weights for a VAE with this hash. Raises InputError for widths that cannot be."""
    if not widths:
        raise InputError("refiner.widths: found none; expected a width for each level, from the picture inwards")
    return Refiner(
        channels=channels,
        widths=tuple(widths),
        blocks=blocks,
        middle=middle,
        draw_steps=draw_steps,
        churn=churn,
        vae=vae,
    )


@torch.no_grad()
def refine(refiner: Refiner, pictures: Tensor, noise: Tensor, steps: int, fresh: Fresh | None = None) -> Tensor:
    """Return pictures (batch, channels, height, width), images in -1..1, with what they miss, from normal `noise`.

    `fresh` gives the new noise of a step, for a refiner that takes some.
    """
    churn = refiner.config.churn if fresh else 0.0

    def velocity(states: Tensor, time: float) -> Tensor:
        return refiner(pictures, states, states.new_full((len(states),), time))

    return pictures + refiner.spread_in(pictures) * flow(noise, velocity, steps, churn=churn, fresh=fresh)


def read_refiner(folder: Path) -> Refiner | None:
    """Return the refiner in the folder of a base, or in a folder of its own; see `read_carried`."""
    return read_carried(folder, REFINER_NAME, Refiner, "refiner")


def refiner_for(base: Base) -> Refiner | None:
    """Return the refiner that a base carries for its VAE; None where it has none, or another VAE is in use."""
    refiner = read_refiner(base.source.path) if base.source.path.is_dir() else None
    return refiner if refiner is not None and refiner.config.vae == base.identity_of("vae") else None


def refining_flops(refiner: Refiner, height: int, width: int) -> int:
    """Return the floating-point operations of one call for a picture, counted without computing them."""
    empty = copy.deepcopy(refiner).to("meta")
    picture = torch.empty(1, refiner.config.channels, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(picture, picture, torch.empty(1, device="meta"))
    return int(counter.get_total_flops())


def _blocks(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width) for _ in range(count))


def _through(level: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    for block in level.children():
        x = block(x, time)
    return x


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Return the layer with weights of 0, so that at first it changes nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _time_features(times: Tensor) -> Tensor:
    """Return cosines and sines of times (batch,) at frequencies from 1 to the highest, (batch, TIME_FEATURES)."""
    frequencies = torch.linspace(0, math.log(HIGHEST_FREQUENCY), TIME_FEATURES // 2, device=times.device).exp()
    angles = times[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)

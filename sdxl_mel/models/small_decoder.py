"""A small decoder: what a VAE's decoder makes of latents, for a fraction of the work; it may stand beside the VAE.

It has the layers of the VAE's own decoder, fewer and narrower, under the same names. The encoder, and with it what
latents mean, stay as they are.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, DecoderOutput
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sdxl_mel.errors import InputError
from sdxl_mel.files.run import SMALL_DECODER_NAME
from sdxl_mel.models.base import Base
from sdxl_mel.models.carried import CarriedModel, read_carried
from sdxl_mel.models.pruning import RESIDUAL, Leaves, Space, Wires, load_pruned, measured, wired

LEVELS = 4
PLACE = re.compile(
    r"decoder\.(mid_block|up_blocks\.(?P<block>\d+))\.(?P<kind>resnets|attentions|upsamplers)\.(?P<layer>\d+)"
    r"\.(?P<leaf>.+)"
)
LEAVES: Mapping[str, Leaves] = {
    "resnets": RESIDUAL,
    "attentions": (
        (r"group_norm", "into", ""),
        (r"to_[qkv]", "inner", "into"),
        (r"to_out\.0", "out", "inner"),
    ),
    "upsamplers": ((r"conv", "out", "into"),),
}
ENDS: Leaves = (
    (r"decoder\.conv_in", "first", ""),
    (r"decoder\.conv_norm_out", "last", ""),
    (r"decoder\.conv_out", "", "last"),
    (r".*", "", ""),
)


class SmallDecoder(CarriedModel):
    """A decoder that is called as a VAE is: `decode(latents).sample`, latents unscaled, images about -1..1.

    `block_out_channels` are the widths from the picture inwards, `layers_per_block` the residual layers of each level
    beyond the first, `vae` the SHA-256 of the VAE whose latents it decodes.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        block_out_channels: tuple[int, ...] = (16, 32, 64, 128),
        layers_per_block: int = 0,
        norm_num_groups: int = 8,
        mid_block_add_attention: bool = True,
        scaling_factor: float = 0.13025,
        vae: str = "",
    ) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(4, 4, 1)
        self.decoder = Decoder(
            4,
            3,
            ("UpDecoderBlock2D",) * LEVELS,
            tuple(block_out_channels),
            layers_per_block,
            norm_num_groups,
            mid_block_add_attention=mid_block_add_attention,
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (batch, 3, height, width) of unscaled latents (batch, 4, height / 8, width / 8)."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images

    def decode(self, latents: Tensor) -> DecoderOutput:
        """Return `forward`'s images as a VAE returns them."""
        return DecoderOutput(sample=self(latents))


@dataclass(frozen=True)
class DecoderShape:
    """Widths from the picture inwards, residual layers a level beyond the first, and whether the middle attends."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int = 0
    attention: bool = True


def small_decoder_of(vae: Any, shape: DecoderShape, run: Callable[[], object], identity: str) -> SmallDecoder:
    """Return a small decoder with the weights of a VAE that matter most while `run` decodes with it.

    `identity` is the VAE's. Raises InputError for a shape that is not smaller, or that its norms cannot take.
    """
    config = vae.config
    groups, widths = config.norm_num_groups, shape.block_out_channels
    if len(widths) != LEVELS or any(width % groups for width in widths):
        raise InputError(
            f"decoder.block_out_channels: found {widths}; expected {LEVELS} widths, from the picture inwards, that are "
            f"multiples of {groups}, the groups of the VAE's norms"
        )
    larger = [f"{mine} of {own}" for mine, own in zip(widths, config.block_out_channels) if mine > own]
    if larger or shape.layers_per_block > config.layers_per_block:
        raise InputError(
            f"decoder: {', '.join(larger) or f'{shape.layers_per_block} layers of {config.layers_per_block}'} is more "
            "than the VAE has; give a smaller decoder"
        )
    pairs = zip(pairwise(widths), pairwise(config.block_out_channels))
    if any(one == two and own != other for (one, two), (own, other) in pairs):
        raise InputError(
            f"decoder.block_out_channels: found {widths}; levels of one width are those of the VAE, which has "
            f"{tuple(config.block_out_channels)}"
        )
    small = SmallDecoder(
        block_out_channels=widths,
        layers_per_block=shape.layers_per_block,
        norm_num_groups=groups,
        mid_block_add_attention=shape.attention,
        scaling_factor=float(config.scaling_factor),
        vae=identity,
    )
    wires = decoder_wires(small, config.block_out_channels)
    spaces = _spaces(wires, widths, config.block_out_channels)
    return load_pruned(small, vae, wires, measured(vae, run, wires, spaces)).requires_grad_(True)  # type: ignore[return-value]


def decoder_wires(small: SmallDecoder, widths: Sequence[int]) -> dict[str, Wires]:
    """Return what every module of a small decoder takes from the VAE's, whose widths are given, and in which spaces."""
    own = small.config.block_out_channels
    levels = [f"level {LEVELS - 1}"]
    for outer in reversed(range(LEVELS - 1)):
        # Without a shortcut in either model both levels are one stream.
        joined = widths[outer] == widths[outer + 1] and own[outer] == own[outer + 1]
        levels.append(levels[-1] if joined else f"level {outer}")
    return {path: _wires(path, levels) for path, module in small.named_modules() if [*module.parameters(recurse=False)]}


def _wires(path: str, levels: Sequence[str]) -> Wires:
    """Return the wires of one module; `levels` are the spaces of the levels from the latents outwards."""
    place = PLACE.fullmatch(path)
    if place is None:
        return wired(path, path, ENDS, {"first": (levels[0],), "last": (levels[-1],)})
    level = int(place["block"] or 0)
    before = level - 1 if place["kind"] == "resnets" and place["layer"] == "0" else level
    inner = path.rpartition(".")[0].removesuffix(".to_out")
    spaces = {"into": (levels[max(before, 0)],), "inner": (inner,), "out": (levels[level],)}
    return wired(path, place["leaf"], LEAVES[place["kind"]], spaces)


def _spaces(wires: dict[str, Wires], kept: Sequence[int], sizes: Sequence[int]) -> dict[str, Space]:
    """Return every space that the wires name; an inner one is as wide as the level in which it lies."""
    level_of: dict[str, int] = {}
    for each in wires.values():
        for name in (*each.writes, *each.reads):
            level_of[name] = int(name[6:]) if name.startswith("level ") else _level_of(name)
    return {name: Space(sizes[level], kept[level]) for name, level in level_of.items()}


def _level_of(block: str) -> int:
    match block.split(".")[1:]:
        case ["up_blocks", index, *_]:
            return LEVELS - 1 - int(index)
    return LEVELS - 1


def decoding_flops(model: Any, height: int, width: int) -> int:
    """Return the floating-point operations of decoding latents of height x width, counted without computing them."""
    empty = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty.decode(torch.empty(1, 4, height, width, device="meta"))
    return int(counter.get_total_flops())


def read_small_decoder(folder: Path) -> SmallDecoder | None:
    """Return the small decoder in the folder of a base, or in a folder of its own; see `read_carried`."""
    return read_carried(folder, SMALL_DECODER_NAME, SmallDecoder, "decoder")


def small_decoder_for(base: Base) -> SmallDecoder | None:
    """Return the small decoder that a base carries for its VAE; None where it has none, or another VAE is in use."""
    decoder = read_small_decoder(base.source.path) if base.source.path.is_dir() else None
    return decoder if decoder is not None and decoder.config.vae == base.identity_of("vae") else None

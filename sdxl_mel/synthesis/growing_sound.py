"""The sound of a picture that is still being drawn: its blocks are made as soon as their frames are there."""

from collections.abc import Callable

import numpy as np

from sdxl_mel.arrays import Float, Levels
from sdxl_mel.sound.inversion.blockwise import block_stops
from sdxl_mel.sound.inversion.methods import invert_blocks
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.synthesis.settings import Method


class GrowingSound:
    """The sound (1 or 2, samples) of levels (n_mels, frames, 1 or 3), as `invert` makes it.

    `on_block` is called with each block. The levels may be written to meanwhile: a block is made
    of what they hold by then.
    """

    def __init__(
        self, levels: Levels, spec: MelSpec, method: Method, loop: bool, on_block: Callable[[Float], None]
    ) -> None:
        self._levels, self._on_block = levels, on_block
        self._left = invert_blocks(levels, spec, method=method, loop=loop)
        self._stops = block_stops(levels.shape[1])
        self._next_stop = next(self._stops)
        self._made: list[Float] = []

    def make_until(self, frames: int) -> None:
        """Make the blocks for which the first `frames` of the picture are enough."""
        while self._next_stop <= frames < self._levels.shape[1] and (self._made or self._channels_differ(frames)):
            self._take(next(self._left))
            self._next_stop = next(self._stops)

    def whole(self) -> Float:
        """Make the blocks that are left, of a picture that is finished, and return all of the sound."""
        for block in self._left:
            self._take(block)
        return np.concatenate(self._made, axis=-1)

    def _take(self, block: Float) -> None:
        self._on_block(block)
        self._made.append(block)

    def _channels_differ(self, frames: int) -> bool:
        """Return whether it is known that this is stereo or mono: a picture of equal channels is inverted as one."""
        drawn = self._levels[:, :frames]
        return drawn.shape[-1] == 1 or bool((drawn != drawn[..., :1]).any())

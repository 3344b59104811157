"""The magnitude projection of one channel, and of left, mid and right together.

|L|, |M| and |R| determine the phase between the channels: 4 |M|^2 = |L|^2 + |R|^2 + 2 Re(L R*). Channels whose phases
are retrieved independently lose that relation, and with it the mono sum and the width.
"""

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.sound.mel import magnitude

TINY = 1e-20
WEAK_MID = 0.05
"""Share of the mean power of left and right below which the mid is too weak to lead."""


def project(spectrum: Tensor, target: Tensor) -> Tensor:
    """Return P_A, the phases of `spectrum` with the magnitudes of `target`.

    `spectrum` is (1, frames, n_bins) for a target (1, ...), and left and right (2, ...) for left, mid and right
    (3, ...). Of two channels the mid is corrected first and the side kept; then each takes its own magnitude.
    """
    if spectrum.shape[0] == target.shape[0]:
        return with_magnitude(spectrum, target)
    left, right = spectrum
    side = (left - right).mul_(0.5)
    mid = with_magnitude(left + right, target[1])  # Of the sum only the phase counts.
    projected = torch.empty_like(spectrum)
    with_magnitude(mid + side, target[0], out=projected[0])
    with_magnitude(mid.sub_(side), target[2], out=projected[1])
    return projected


def with_magnitude(spectrum: Tensor, target: Tensor, out: Tensor | None = None) -> Tensor:
    """Return a spectrum with other magnitudes, written into `out` if given; where it is zero it stays zero."""
    gain = magnitude(spectrum).clamp_min_(TINY)
    torch.div(target, gain, out=gain)
    if spectrum.device.type == "cpu":
        # torch would first make the gain complex, numpy does it on the way: 1.1 ms against 2.0 for 1024 frames.
        return torch.from_numpy(np.multiply(spectrum.numpy(), gain.numpy(), out=None if out is None else out.numpy()))
    return torch.mul(spectrum, gain, out=out)


def leading_channel(target: Tensor) -> int:
    """Return the index of the channel whose phase is retrieved first.

    It is the mid, or the left where the channels cancel and the mid is too weak; 0 for one channel.
    """
    if target.shape[0] == 1:
        return 0
    left, mid, right = (float(channel.square().sum()) for channel in target)
    return 1 if mid >= WEAK_MID * (left + right) / 2 else 0


def stereo_from_leading(leading: Tensor, target: Tensor) -> Tensor:
    """Return the initial left and right (2, ...) from the spectrum of the leading channel and the targets (3, ...).

    The channels start in phase, or in opposite phase where |M| is nearer to that: equal phases of channels that cancel
    would make mid and side zero, which leaves no phase to start from.
    """
    left, mid, right = target
    opposite = 4 * mid.square() < left.square() + right.square()
    other = torch.where(opposite, -leading[0], leading[0])
    return torch.stack([with_magnitude(leading[0], left), with_magnitude(other, right)])


def magnitudes(spectrum: Tensor, channels: int) -> Tensor:
    """Return the magnitudes that `project` takes: of one channel, or with `channels` 3 of left, mid and right."""
    if channels == spectrum.shape[0]:
        return magnitude(spectrum)
    left, right = spectrum
    found = spectrum.real.new_empty(channels, *left.shape)
    magnitude(left, out=found[0])
    magnitude(left + right, out=found[1]).mul_(0.5)
    magnitude(right, out=found[2])
    return found

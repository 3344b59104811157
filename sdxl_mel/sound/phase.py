"""Phase retrieval: alternating projections between spectra of a wanted magnitude and spectra of real sound.

Notation of the sources: P_A gives a spectrum the wanted magnitudes and keeps its phase, P_C makes it the STFT of a
sound. Spectra are complex (channels, frames, n_bins); one channel has targets (1, frames, n_bins), two have (3, ...):
left, mid and right.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdxl_mel.sound.mel import istft, stft
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.sound.stereo import project

MOMENTUM = 0.99
RELAXATION = 0.9

Refresh = Callable[[Tensor], Tensor]
"""From a consistent spectrum to new target magnitudes."""


@dataclass(frozen=True)
class Anchor:
    """Samples that are known already, (channels, reach), and how much each counts, 0..1 (reach,)."""

    samples: Tensor
    weight: Tensor

    def mono(self) -> "Anchor":
        """Return the anchor of the mean of the channels."""
        return Anchor(self.samples.mean(dim=0, keepdim=True), self.weight)


@dataclass(frozen=True)
class Consistency:
    """P_C: the STFT of the nearest sound; with an anchor, of a sound that agrees with what is known."""

    spec: MelSpec
    loop: bool = False
    anchor: Anchor | None = None

    def sound(self, spectrum: Tensor) -> Tensor:
        """Return the sound (channels, reach) nearest to a spectrum."""
        samples = istft(spectrum, self.spec, self.loop)
        return samples if self.anchor is None else torch.lerp(samples, self.anchor.samples, self.anchor.weight)

    def __call__(self, spectrum: Tensor) -> Tensor:
        """Return the STFT of `sound(spectrum)`."""
        return stft(self.sound(spectrum), self.spec)


def fast_griffin_lim(
    start: Tensor, target: Tensor, consistent: Consistency, iterations: int, refresh: Refresh | None = None
) -> Tensor:
    """Return a spectrum with the target magnitudes, by fast Griffin-Lim (Perraudin et al. 2013, algorithm 2).

    t <- c + a (c - c_previous) with c = P_C(P_A(t)). With `refresh` the targets follow the consistent spectrum, for all
    but the first third of the iterations.
    """
    current, previous = start, torch.zeros_like(start)
    for iteration in range(iterations):
        consistent_one = consistent(project(current, target))
        if refresh is not None and iteration >= iterations // 3:
            target = refresh(consistent_one)
        current = previous.mul_(-MOMENTUM).add_(consistent_one, alpha=1 + MOMENTUM)
        previous = consistent_one
    return project(previous, target)


def relaxed_reflections(start: Tensor, target: Tensor, consistent: Consistency, iterations: int) -> Tensor:
    """Return a spectrum near both constraints by RAAR (Luke 2005, equation 2.1), a start for `fast_griffin_lim`.

    X <- b/2 (X + R_C R_A X) + (1 - b) P_A X with R = 2 P - 1, which is b (X + P_C R_A X) + (1 - 2 b) P_A X.
    """
    current = start.clone()
    for _ in range(iterations):
        projected = project(current, target)
        reflected = torch.sub(2 * projected, current)
        current.add_(consistent(reflected)).mul_(RELAXATION).add_(projected, alpha=1 - 2 * RELAXATION)
    return current

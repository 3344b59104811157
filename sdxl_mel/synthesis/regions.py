"""Regions to edit, seconds x Hz: as people write them, as cells of the latent grid, and as weights on a picture."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Float
from sdxl_mel.durations import seconds_of
from sdxl_mel.errors import InputError
from sdxl_mel.sound.blend import raised_cosine
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec, band_edges

FEATHER_CELLS = 1
"""Latent cells around a region that go half as far as it does: its border is there, and not inside it."""
PATTERN = re.compile(
    r"(?P<start>[\d:.]+)\s*-\s*(?P<end>[\d:.]+)\s*s?"
    r"(?:\s+(?P<low>[\d.]+)\s*-\s*(?P<high>[\d.]+)\s*Hz)?"
    r"(?:\s+strength\s+(?P<strength>[\d.]+))?"
    r"\s*(?::\s+(?P<prompt>\S.*))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Region:
    """A stretch in seconds and a band in Hz (None = all), with a prompt and a strength of its own where stated.

    Raises InputError for one without extent, or with a strength that is none.
    """

    start: float
    end: float
    low: float | None = None
    high: float | None = None
    prompt: str | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        low, high = self._band()
        if not (0 <= self.start < self.end and 0 <= low < high):
            raise InputError(f"{self}: is empty; its end must be above its start")
        require_strength(self.strength, str(self))

    def __str__(self) -> str:
        """Return its times, and its band where it has one, for errors."""
        low, high = self._band()
        band = "" if (low, high) == (0, math.inf) else f" {low:g}-{high:g}Hz"
        return f"--region {self.start:g}-{self.end:g}s{band}"

    def _band(self) -> tuple[float, float]:
        return 0.0 if self.low is None else self.low, math.inf if self.high is None else self.high


def parse_region(text: str) -> Region:
    """Return the region of `12.0-15.5s 200-2000Hz strength 0.8: banjo solo`; only the times must be there.

    Raises InputError for anything else, and for a region without extent.
    """
    match = PATTERN.fullmatch(text.strip())
    if match is None:
        raise InputError(f'--region: found {text!r}; write it as "12.0-15.5s 200-2000Hz strength 0.8: banjo solo"')
    start, end = (seconds_of(match[name], "--region") for name in ("start", "end"))
    low, high, strength = (_number(match[name], text) for name in ("low", "high", "strength"))
    return Region(start, end, low, high, match["prompt"], strength)


def _number(text: str | None, where: str) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise InputError(f"--region: found {text!r} in {where!r}; give a number") from error


def require_strength(strength: float | None, where: str) -> None:
    """Raise InputError unless a strength, where one is stated, is one."""
    if strength is not None and not 0 < strength <= 1:
        raise InputError(f"{where}: found a strength of {strength:g}; one is above 0 and at most 1")


@dataclass(frozen=True)
class Patch:
    """The cells of a region: latent columns [first, after) and rows [bottom, top) of all `rows`, row 0 the lowest.

    Columns count from the start of the canvas; of one that is a circle they may lie beyond its end. `feather` columns
    and as many rows around them go part of the way.
    """

    first: int
    after: int
    bottom: int
    top: int
    rows: int
    strength: float
    feather: int = FEATHER_CELLS

    @property
    def every_row(self) -> bool:
        """Return whether it is as high as the picture."""
        return self.bottom == 0 and self.top == self.rows

    def strengths(self, start: int, columns: int, spec: MelSpec) -> Tensor:
        """Return how far each latent of a window goes, (1, 1, rows, columns) as the VAE has them."""
        across = _steps(self.first - start, self.after - start, columns, self.feather)
        up = _steps(self.bottom, self.top, self.rows, self.feather)
        cells = torch.from_numpy(self.strength * np.minimum(up[:, None], across[None, :]))
        return (cells.flip(0) if spec.low_at == "bottom" else cells)[None, None]

    def weights(self, start: int, frames: int) -> Float:
        """Return the weight of the drawn picture, (n_mels, frames), in frames from `start` on."""
        first, after = self.first * LATENT_FACTOR - start, self.after * LATENT_FACTOR - start
        across = _ramps(first, after, frames, self.feather * LATENT_FACTOR)
        bottom, top, rows = (each * LATENT_FACTOR for each in (self.bottom, self.top, self.rows))
        # At the lowest and at the highest row a region has no border.
        up = _ramps(bottom, top, rows, self.feather * LATENT_FACTOR)
        return np.minimum(up[:, None], across[None, :])

    def band(self, spec: MelSpec) -> tuple[float, float, float, float]:
        """Return the band in Hz: where its lower feather begins and ends, and where its upper one does."""
        edges = band_edges(spec.n_mels, spec.fmin, spec.fmax, spec.mel_scale)
        rows = (self.bottom - self.feather, self.bottom, self.top, self.top + self.feather)
        low_out, low, high, high_out = (float(edges[min(max(row, 0), self.rows) * LATENT_FACTOR]) for row in rows)
        return low_out, low, high, high_out


def _steps(first: int, after: int, count: int, feather: int) -> Float:
    """Return 1 in [first, after), falling in equal steps outside of it to 0."""
    cells = np.arange(count)
    outside = np.maximum(np.maximum(first - cells, cells - (after - 1)), 0)
    return np.maximum(1 - outside / (feather + 1), 0).astype(np.float32)


def _ramps(first: int, after: int, count: int, feather: int) -> Float:
    """Return 1 in [first, after), falling by raised cosines outside of it to 0."""
    fall = raised_cosine(feather)[::-1]
    places = np.arange(count)
    outside = np.maximum(np.maximum(first - places, places - (after - 1)), 0)
    return np.concatenate([[1.0], fall, [0.0]])[np.minimum(outside, feather + 1)].astype(np.float32)


def place(region: Region, spec: MelSpec, seconds: float, strength: float, shift: int = 0) -> Patch:
    """Return the cells of a region of a sound of `seconds`, widened to whole cells, `shift` columns later.

    Raises InputError for a region beyond the end or above fmax, and for one smaller than a cell.
    """
    per_second = spec.sample_rate / spec.hop_length / LATENT_FACTOR
    if region.end > seconds + 1e-6:
        raise InputError(f"{region}: the sound ends at {seconds:.2f} s")
    if (region.end - region.start) * per_second < 1 - 1e-9:
        raise InputError(f"{region}: shorter than a latent cell; the shortest region is {1 / per_second:.3f} s")
    rows = spec.n_mels // LATENT_FACTOR
    bottom, top = 0, rows
    if region.low is not None or region.high is not None:
        low, high = region.low or 0.0, spec.fmax if region.high is None else region.high
        if high > spec.fmax or low >= high:
            above = max(low, high)
            raise InputError(f"{region}: {above:g} Hz is above the picture, which ends at {spec.fmax:g} Hz")
        edges = band_edges(spec.n_mels, spec.fmin, spec.fmax, spec.mel_scale)[::LATENT_FACTOR][: rows + 1]
        bottom = max(int(np.searchsorted(edges, low, side="right")) - 1, 0)
        top = min(int(np.searchsorted(edges, high, side="left")), rows)
        smallest = float(edges[min(bottom + 1, rows)] - edges[bottom])
        if high - low < smallest - 1e-6:
            raise InputError(f"{region}: narrower than a latent cell; there the narrowest region is {smallest:.0f} Hz")
    first, after = int(region.start * per_second + 1e-9), -int(-(region.end * per_second - 1e-9) // 1)
    return Patch(first + shift, after + shift, bottom, top, rows, region.strength or strength)


def require_apart(patches: Sequence[Patch], spec: MelSpec) -> None:
    """Raise InputError for two regions that share a cell."""
    per_second = spec.sample_rate / spec.hop_length / LATENT_FACTOR
    for one, other in combinations(patches, 2):
        if max(one.first, other.first) < min(one.after, other.after) and max(one.bottom, other.bottom) < min(
            one.top, other.top
        ):
            seconds = f"{max(one.first, other.first) / per_second:.2f} s"
            raise InputError(f"--region: two regions overlap at {seconds}; regions are whole cells of the latent grid")

"""How long a result is, in frames and in latent columns, and where its views lie."""

from dataclasses import dataclass

from sdxl_mel.diffusion.long_form import place_views
from sdxl_mel.diffusion.samplers import Merge
from sdxl_mel.durations import frames_of
from sdxl_mel.errors import InputError
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.synthesis.settings import Length, Mode

LOOP_COLUMNS = 4
"""The UNet halves its width twice: a circle of latents must be divisible by 4, or the halving breaks it."""
OVERLAPS: dict[Mode, str] = {"joint": "50%", "extend": "37.5%", "independent": "25%"}


@dataclass(frozen=True)
class Layout:
    """`frames` are kept of `columns` latent columns; `starts` are the views' first columns, `width` their columns."""

    frames: int
    columns: int
    width: int
    starts: tuple[int, ...]
    loop: bool
    mode: Mode
    merge: Merge

    @property
    def long(self) -> bool:
        """Return whether one tile is not enough."""
        return self.columns > self.width

    @property
    def seams(self) -> list[tuple[int, int]]:
        """Return (first frame, frames) of what each view shares with the one before it."""
        pairs = zip(self.starts, self.starts[1:])
        return [(here * LATENT_FACTOR, (before + self.width - here) * LATENT_FACTOR) for before, here in pairs]

    def seconds(self, spec: MelSpec) -> float:
        """Return how long the sound is."""
        return self.frames * spec.hop_length / spec.sample_rate


def lay_out(length: Length, spec: MelSpec) -> Layout:
    """Return the layout of a result; a loop is rounded to what the UNet can close. Raises InputError if too short."""
    seconds, loop = length.seconds, length.loop
    frames = spec.width if seconds is None else round(seconds * spec.sample_rate / spec.hop_length)
    if frames < LATENT_FACTOR * LOOP_COLUMNS:
        least = LATENT_FACTOR * LOOP_COLUMNS * spec.hop_length / spec.sample_rate
        raise InputError(f"--seconds {seconds:g}: give at least {least:.2f}")
    width = spec.width // LATENT_FACTOR
    columns = -(-frames // LATENT_FACTOR)
    if loop:
        columns = round(columns / LOOP_COLUMNS) * LOOP_COLUMNS
        frames = columns * LATENT_FACTOR
    starts: tuple[int, ...] = (0,)
    if columns > width:
        shared = round(frames_of(length.overlap or OVERLAPS[length.mode], spec, "--overlap") / LATENT_FACTOR)
        starts = tuple(place_views(columns, width, shared, loop))
    elif not loop:
        # A tile is drawn whole and cropped; a loop cannot be cropped, so it is drawn as short as it is.
        columns = width
    return Layout(frames, columns, width, starts, loop, length.mode, length.merge)

"""Refining what was drawn: its noise belongs to a place of the result, so that all windows that show it agree."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.circular import circular_in_time
from sdxl_mel.errors import InputError
from sdxl_mel.files.run import REFINER_NAME
from sdxl_mel.models.base import Base
from sdxl_mel.models.carried import carried_hash
from sdxl_mel.models.refiner import Refiner, refine, refiner_for
from sdxl_mel.models.vae import images_of, values_of_images
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import quantise


@dataclass(frozen=True)
class Refining:
    """A refiner, in how many steps it refines, and its hash as a record holds it."""

    refiner: Refiner
    steps: int
    identity: str

    def refined(self, levels: Levels, first: int, *, spec: MelSpec, seed: int, circle: int | None = None) -> Levels:
        """Return levels (n_mels, frames, channels) with what the VAE smoothed.

        `first` is the latent column of the result at which they begin; on a `circle` of so many columns, they go on at
        its start, and where they are all of it time is a circle for the refiner too.
        """
        columns = [first + column for column in range(levels.shape[1] // LATENT_FACTOR)]
        places = columns if circle is None else [column % circle for column in columns]
        shape = (levels.shape[-1], spec.n_mels, LATENT_FACTOR)
        device = self.refiner.conv_in.weight.device

        def drawn(step: int) -> Tensor:
            parts = [torch.randn(shape, generator=torch_generator(seed, "refine", step, place)) for place in places]
            return torch.cat(parts, dim=-1)[None].to(device)

        images = images_of(levels[None], spec.low_at)[:, : levels.shape[-1]].to(device)
        with circular_in_time(self.refiner) if len(columns) == circle else nullcontext():
            made = refine(self.refiner, images, drawn(-1), self.steps, drawn)
        return quantise(values_of_images(made, levels.shape[-1], spec.low_at)[0])


def refining_with(base: Base, steps: int | None, channels: int, device: str) -> Refining:
    """Return the refiner that a base carries, to refine in `steps` steps, None = as many as it asks for.

    Raises InputError where the base carries none for the VAE in use, or one for pictures of other channels.
    """
    refiner = refiner_for(base)
    if refiner is None:
        raise InputError(
            f"--refine: {base.name} carries no refiner for the VAE in use; train one with --task refiner and copy it "
            "into the folder of the base"
        )
    if refiner.config.channels != channels:
        raise InputError(
            f"--refine: the refiner of {base.name} is for pictures of {refiner.config.channels} channels; these have "
            f"{channels}"
        )
    return Refining(
        refiner.to(device), steps or refiner.config.draw_steps, carried_hash(base.source.path, REFINER_NAME)
    )

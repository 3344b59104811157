"""A VAE's decoder as a task: it learns to make pictures of what the encoder keeps of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.files.cache import CachedExample
from sdxl_mel.models.vae import unscale_latents
from sdxl_mel.seeding import torch_generator
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.training.adversary import Adversary
from sdxl_mel.training.batches import TrainingData
from sdxl_mel.training.cached_pictures import CachedPictures
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.picture_losses import LEVELS, TERMS, PictureLoss
from sdxl_mel.training.task import Losses, Mean, share_of

DECODES = ("decoder.", "post_quant_conv.")
"""What of a VAE makes pictures of latents."""


@dataclass(frozen=True)
class PictureBatch:
    """Unscaled latents (batch, 4, height, width), the images of their clips, where they are from, the weight of each.

    The last were drawn anew: of these there are `cells` (drawn, 3, height, width), see `redrawn_latents`.
    """

    latents: Tensor
    images: Tensor
    sources: tuple[str, ...]
    weights: Tensor
    cells: Tensor


@dataclass(frozen=True)
class PictureExample:
    """One of such a batch; `cells` are None where the latents are the encoder's."""

    latents: Tensor
    image: Tensor
    source: str
    weight: float
    cells: Tensor | None = None


class DecoderTask:
    """A VAE's decoder as a Task (see `training.task.Task`); `clips` are those that are judged, by what they are.

    `crop` is how many frames of a tile are decoded at once, None = all; judged are whole tiles. `write_file` and
    `write_result` write the VAE as it is.
    """

    judged_by = "loss in levels"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        vae: Any,
        pictures: CachedPictures,
        data: TrainingData,
        loss: PictureLoss,
        *,
        noise: float,
        crop: int | None,
        rate: float,
        clips: Mapping[str, Sequence[CachedExample]],
        write_file: Callable[[Path], None],
        write_result: Callable[[Path], None],
        accelerator: Accelerator,
        dtype: torch.dtype,
        adversary: Adversary | None = None,
    ) -> None:
        self.vae, self.pictures, self.data, self.loss = vae, pictures, data, loss
        self.noise, self.crop, self.rate, self.clips = noise, crop, rate, clips
        self.write_file, self.write_result = write_file, write_result
        self.accelerator, self.dtype = accelerator, dtype
        self.adversary, self.judged = adversary, tuple(clips)
        self.parameters = trained_of(vae)
        if adversary:
            own = adversary.discriminator.named_parameters()
            self.parameters |= {f"discriminator.{name}": each for name, each in own}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the decoder's parameters at one rate, and those of a discriminator at its own."""
        groups = [{"params": list(trained_of(self.vae).values()), "lr": self.rate}]
        if self.adversary:
            groups.append({"params": list(self.adversary.discriminator.parameters()), "lr": self.adversary.rate})
        return groups

    def batch(self, step: int, places: range) -> PictureBatch:
        """Return latents as the encoder draws them, with noise of a strength drawn for each, and their pictures.

        Behind them stand those that the base drew anew, for the slots that are theirs.
        """
        examples = [self._example(step * self.data.settings.batch + place) for place in places]
        examples.sort(key=lambda each: each.cells is not None)
        latents = torch.stack([each.latents for each in examples])
        none = latents.new_empty((0, 3, *latents.shape[2:]))
        return PictureBatch(
            latents,
            images=torch.stack([each.image for each in examples]),
            sources=tuple(each.source for each in examples),
            weights=torch.tensor([each.weight for each in examples]),
            cells=torch.cat([none, *(each.cells[None] for each in examples if each.cells is not None)]),
        )

    def losses(self, batch: PictureBatch, step: int) -> Losses:
        """Return the weighted losses of a batch; the windows of its spectra lie where the step draws them."""
        generator = torch_generator(self.data.settings.seed, "windows", step)
        made, wanted = self._decoded(batch.latents), batch.images.to(self.accelerator.device)
        sizes = [len(made) - len(batch.cells), len(batch.cells)]
        (made, ours), (wanted, theirs) = made.split(sizes), wanted.split(sizes)
        # FFTs of nothing are an error: a micro-batch may be drawn ones alone.
        terms = self.loss.terms(made, wanted, generator) if len(made) else dict.fromkeys(TERMS, made.new_zeros(0))
        each = torch.stack(list(terms.values())).sum(dim=0)
        logged = {name: Mean.of(term.detach()) for name, term in terms.items()}
        logged["bias_in_levels"] = Mean.of((made - wanted).detach().mean((1, 2, 3)) * LEVELS)
        if self.adversary:
            with self._precision():
                terms = self.adversary.terms(ours, theirs, batch.cells.to(ours.device), step)
            each = torch.cat([each, torch.stack(list(terms.values())).sum(dim=0)])
            logged |= {name: Mean.of(term.detach()) for name, term in terms.items()}
        return Losses(each * batch.weights.to(each.device), batch.sources, logged)

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the mean loss on whole tiles of one kind, decoded from the means of their posteriors."""
        clips = self.clips[name]
        own = share_of(len(clips), self.accelerator.process_index, self.accelerator.num_processes)
        total = torch.zeros(1, device=self.accelerator.device)
        for clip in clips[own.start : own.stop]:
            made = self._decoded(self.data.cache.latents(clip.key)[0][None])
            wanted = self.pictures.image(clip)[None].to(made.device)
            total += torch.stack(list(self.loss.terms(made, wanted, None).values())).sum()
        return [float(value) / len(clips) for value in over_processes(self.accelerator, total)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the VAE as one file."""
        self.write_file(path)

    def save_result(self, folder: Path, step: int) -> None:
        """Write the VAE as a folder and as one file."""
        self.write_result(folder)

    def _example(self, slot: int) -> PictureExample:
        if self.adversary and (redrawn := self.adversary.example(slot)):
            return self._redrawn(slot, redrawn, self.adversary)
        example, weight = self.data.example(slot)
        generator = torch_generator(self.data.settings.seed, "decoder", slot)
        offset = int(torch.randint(len(example.offsets), (), generator=generator))
        latent = self.data.latent(example, offset, generator)
        strength = self.noise * torch.rand((), generator=generator)
        noisy = latent + strength * torch.randn(latent.shape, generator=generator)
        unscaled = unscale_latents(noisy, self.data.cache.header.scaling_factor)
        columns, frames = self._window(latent.shape[-1], generator)
        image = self.pictures.image(example, offset)
        return PictureExample(unscaled[..., columns], image[..., frames], example.source, weight)

    def _redrawn(self, slot: int, clip: CachedExample, adversary: Adversary) -> PictureExample:
        latents, cells = adversary.redrawn.read(clip)
        generator = torch_generator(self.data.settings.seed, "redrawn", slot)
        columns, frames = self._window(latents.shape[-1], generator)
        image = self.pictures.image(clip)[..., frames]
        return PictureExample(latents[..., columns], image, clip.source, clip.weight, cells[..., columns])

    def _window(self, columns: int, generator: torch.Generator) -> tuple[slice, slice]:
        """Return the columns of latents that are decoded at once, and their frames; a crop lies where it is drawn."""
        count = min(self.crop // LATENT_FACTOR, columns) if self.crop else columns
        first = int(torch.randint(columns - count + 1, (), generator=generator)) if count < columns else 0
        return slice(first, first + count), slice(first * LATENT_FACTOR, (first + count) * LATENT_FACTOR)

    def _decoded(self, latents: Tensor) -> Tensor:
        """Return the images of unscaled latents, float32."""
        with self._precision():
            images: Tensor = self.vae.decode(latents.to(self.accelerator.device)).sample
        return images.float()

    def _precision(self) -> AbstractContextManager[Any]:
        """Return a context that computes in bfloat16 if that is wanted; all weights are float32."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def trained_of(vae: Any) -> dict[str, torch.nn.Parameter]:
    """Return what of a VAE makes pictures of latents, by name, and let gradients reach it alone."""
    vae.requires_grad_(False)
    named = {name: each for name, each in vae.named_parameters() if name.startswith(DECODES)}
    for parameter in named.values():
        parameter.requires_grad_(True)
    return named

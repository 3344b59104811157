"""A small decoder as a task: it learns to make of latents the pictures that a VAE's own decoder makes of them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.files.cache import CachedExample
from sdxl_mel.files.run import SMALL_DECODER_NAME
from sdxl_mel.models.carried import write_carried, write_weights
from sdxl_mel.models.small_decoder import SmallDecoder
from sdxl_mel.models.vae import unscale_latents
from sdxl_mel.seeding import torch_generator
from sdxl_mel.training.batches import TrainingData
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.drawn_points import DrawnPoints
from sdxl_mel.training.task import Losses, Mean, share_of

LEVELS = 255 / 2
"""Images are in -1..1, levels in 0..255."""


@dataclass(frozen=True)
class LatentBatch:
    """Unscaled latents (batch, 4, height, width), where they are from, and the weight of each, (batch,)."""

    latents: Tensor
    sources: tuple[str, ...]
    weights: Tensor


class SmallDecoderTask:
    """A small decoder as a Task (see `training.task.Task`); `clips` are those that are judged, by what they are.

    What is learnt is a function: the teacher makes one picture of one latent. So there is nothing to guess, and the
    plain absolute error has no blur to hide behind. Its slopes weigh fine changes, which hold little of the error and
    much of the sound.
    """

    judged_by = "error in levels"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        decoder: SmallDecoder,
        teacher: Any,
        data: TrainingData,
        *,
        noise: float,
        slopes: float,
        rate: float,
        clips: Mapping[str, Sequence[CachedExample]],
        accelerator: Accelerator,
        dtype: torch.dtype,
        drawn: DrawnPoints | None = None,
    ) -> None:
        self.drawn = drawn
        self.decoder, self.teacher, self.data, self.noise, self.slopes = decoder, teacher, data, noise, slopes
        self.rate, self.clips, self.accelerator, self.dtype = rate, clips, accelerator, dtype
        self.parameters = dict(decoder.named_parameters())
        self.judged = tuple(clips)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> LatentBatch:
        """Return samples of the posteriors, or what was drawn, with noise of a strength drawn for each."""
        slots = [step * self.data.settings.batch + place for place in places]
        chosen = [self.data.example(slot) for slot in slots]
        return LatentBatch(
            latents=torch.stack([self._latent(slot, example) for slot, (example, _) in zip(slots, chosen)]),
            sources=tuple(example.source for example, _ in chosen),
            weights=torch.tensor([weight for _, weight in chosen]),
        )

    def losses(self, batch: LatentBatch, step: int) -> Losses:
        """Return the weighted absolute errors, and those of the slopes, of each picture."""
        error = self._error(batch.latents)
        absolute = error.abs().mean(dim=(1, 2, 3))
        slopes = error.diff(dim=3).abs().mean(dim=(1, 2, 3)) + error.diff(dim=2).abs().mean(dim=(1, 2, 3))
        each = (absolute + self.slopes * slopes) * batch.weights.to(error.device)
        logged = {
            "error_in_levels": Mean.of(absolute.detach() * LEVELS),
            "bias": Mean.of(error.detach().mean((1, 2, 3))),
        }
        return Losses(each, batch.sources, logged)

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the mean absolute error in levels on the posterior means of clips of one kind."""
        clips, size = self.clips[name], self.data.settings.batch
        own = share_of(len(clips), self.accelerator.process_index, self.accelerator.num_processes)
        total = torch.zeros(1, device=self.accelerator.device)
        for start in range(own.start, own.stop, size):
            piece = clips[start : min(start + size, own.stop)]
            error = self._error(torch.stack([self.data.cache.latents(clip.key)[0] for clip in piece]))
            total += error.abs().mean(dim=(1, 2, 3)).sum() * LEVELS
        return [float(value) / len(clips) for value in over_processes(self.accelerator, total)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the weights to one file."""
        write_weights(path, self.decoder, torch.float32)

    def save_result(self, folder: Path, step: int) -> None:
        """Write the decoder to a folder that a base may carry."""
        write_carried(folder / SMALL_DECODER_NAME, self.decoder)

    def _latent(self, slot: int, example: CachedExample) -> Tensor:
        generator = torch_generator(self.data.settings.seed, "small decoder", slot)
        offset = int(torch.randint(len(example.offsets), (), generator=generator))
        latent = self.data.latent(example, offset, generator)
        if self.drawn is not None and (trajectory := self.drawn.at(slot)):
            latent = self.drawn.clean(trajectory)
        strength = self.noise * torch.rand((), generator=generator)
        noisy = latent + strength * torch.randn(latent.shape, generator=generator)
        return unscale_latents(noisy, self.data.cache.header.scaling_factor)

    def _error(self, latents: Tensor) -> Tensor:
        """Return by how much images differ from the teacher's, float32."""
        latents = latents.to(self.accelerator.device)
        with self._precision():
            with torch.no_grad():
                wanted = self.teacher.decode(latents).sample
            made = self.decoder(latents)
        return made.float() - wanted.float()

    def _precision(self) -> AbstractContextManager[Any]:
        """Return a context that computes in bfloat16 if that is wanted; all weights are float32."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

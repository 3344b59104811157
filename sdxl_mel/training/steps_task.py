"""A step adapter as a task: a LoRA with which a base, or a base with LoRAs, draws in few unguided steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.losses import LOSSES, per_sample
from sdxl_mel.files.run import DIFFUSERS_NAME, LORA_NAME
from sdxl_mel.files.trajectories import Trajectory
from sdxl_mel.models.lora.file import LoraHeader
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.jumps import JumpData, Jumps
from sdxl_mel.training.model import Model, write_adapters
from sdxl_mel.training.step_objectives import Landed, Objective
from sdxl_mel.training.steps_settings import StepLossSettings
from sdxl_mel.training.task import Losses, Mean, share_of


class StepsTask:
    """A step adapter as a Task (see `training.task.Task`)."""

    judged_by = "squared error of where a step lands"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        model: Model,
        data: JumpData,
        objective: Objective,
        *,
        loss: StepLossSettings,
        rate: float,
        header: LoraHeader,
        judged: Mapping[str, Sequence[Trajectory]],
        accelerator: Accelerator,
    ) -> None:
        self.model, self.data, self.objective, self.loss = model, data, objective, loss
        self.rate, self.header, self.trajectories, self.accelerator = rate, header, judged, accelerator
        self.parameters = dict(model.adapters.named_parameters())
        self.judged = tuple(judged)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all adapters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> Sequence[Jumps]:
        """Return points of trajectories, and where they lead."""
        return self.objective.batch(step, places)

    def losses(self, batch: Sequence[Jumps], step: int) -> Losses:
        """Return the losses of a batch: of an example, the mean over its jumps."""
        batch = self._here(batch)
        landed = self.objective.landed(batch, self._predict)
        each = torch.stack([self._loss(one) for one in landed]).mean(dim=0)
        squares = torch.cat([per_sample(error_of(one).detach().square()) for one in landed])
        segments = F.one_hot(torch.cat([jumps.segments for jumps in batch]), self.data.draw_steps[0]).float()
        logged = {"squared_error": Mean.of(squares), "by_segment": Mean(squares @ segments, segments.sum(dim=0))}
        return Losses(each, batch[0].sources, logged)

    def _loss(self, landed: Landed) -> Tensor:
        delta = torch.full((len(landed.found),), self.loss.delta, device=landed.found.device)
        found, wanted = landed.found * landed.weight, landed.wanted * landed.weight
        return LOSSES[self.loss.kind].of_samples(found, wanted, delta, "mse")

    def _here(self, batch: Sequence[Jumps]) -> Sequence[Jumps]:
        return [jumps.on(self.model.device, self.model.dtype) for jumps in batch]

    def _predict(self, latents: Tensor, timesteps: Tensor, text: TextEmbeddings) -> Tensor:
        return self.model.predict_at(latents.to(self.model.dtype), timesteps, text).float()

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the squared error of each step's landing, lowest noise first."""
        judged = self.trajectories[name]
        own = share_of(len(judged), self.accelerator.process_index, self.accelerator.num_processes)
        sums = torch.zeros(self.data.draw_steps[0], device=self.model.device)
        for start in range(own.start, own.stop, self.data.size):
            piece = judged[start : min(start + self.data.size, own.stop)]
            batch = self._here(self.objective.judged(piece))
            for jumps, landed in zip(batch, self.objective.landed(batch, self._predict)):
                sums.index_add_(0, jumps.segments, per_sample(error_of(landed).square()))
        return [each / len(judged) for each in over_processes(self.accelerator, sums)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the adapter to one file, in kohya's names."""
        write_adapters(self.model.adapters, self.header, path, step, "kohya")

    def save_result(self, folder: Path, step: int) -> None:
        """Write the adapter in both dialects."""
        write_adapters(self.model.adapters, self.header, folder / LORA_NAME, step, "kohya")
        write_adapters(self.model.adapters, self.header, folder / DIFFUSERS_NAME, step, "diffusers")


def error_of(landed: Landed) -> Tensor:
    """Return by how much jumps miss where they should land."""
    return (landed.found - landed.wanted) * landed.scale

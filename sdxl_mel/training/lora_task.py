"""The LoRA: adapters on the UNet and the text encoders of a base, trained to predict the noise of cached latents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from sdxl_mel.diffusion.losses import LOSSES, counts_twice, signal_to_noise, snr_weights, squared_error
from sdxl_mel.diffusion.schedules import huber_delta
from sdxl_mel.files.cache import CachedExample
from sdxl_mel.files.run import DIFFUSERS_NAME, LORA_NAME
from sdxl_mel.models.lora.file import LoraHeader
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.training.batches import DECILES, TIMESTEPS, Batch, Diffusion, TrainingData, is_regularized
from sdxl_mel.training.lora_settings import LoraAdapterSettings, LoraOptimizerSettings, LossSettings
from sdxl_mel.training.model import Model, parameter_groups, write_adapters
from sdxl_mel.training.task import HELD_OUT, TRAINED, Losses, Mean, share_of


class LoraTask:
    """A LoRA as a Task (see `training.task.Task`); `clips` are those that are judged, by what they are."""

    judged_by = "squared error"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        model: Model,
        data: TrainingData,
        objective: "Objective",
        *,
        header: LoraHeader,
        adapter: LoraAdapterSettings,
        optimizer: LoraOptimizerSettings,
        clips: Mapping[str, Sequence[CachedExample]],
        accelerator: Accelerator,
    ) -> None:
        self.model, self.data, self.objective, self.header = model, data, objective, header
        self.adapter, self.optimizer, self.clips, self.accelerator = adapter, optimizer, clips, accelerator
        self.parameters = dict(model.adapters.named_parameters())
        self.judged = tuple(clips)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the adapters by rate (see `model.parameter_groups`)."""
        return parameter_groups(self.model.adapters, self.optimizer)

    def batch(self, step: int, places: range) -> Batch:
        """Return cached latents with noise, and what is said of them."""
        return self.data.batch(step, places)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Return the losses of a batch, its dropout drawn anew."""
        model, adapter = self.model, self.adapter
        batch = batch.to(model.device, model.dtype)
        wanted = self._wanted(batch)
        model.adapters.draw_masks(
            self.data.settings.seed, step, batch.slots, adapter.rank_dropout, adapter.module_dropout
        )
        return self.objective(model.predict(batch), batch, step, wanted)

    def _wanted(self, batch: Batch) -> Tensor:
        """Return what a batch is trained to be predicted as: its target, or for regularisation what the base says."""
        settings = self.data.settings.regularization
        kept = [place for place, slot in enumerate(batch.slots) if is_regularized(slot, settings.share)]
        if settings.target == "noise" or not kept:
            return batch.target
        wanted = batch.target.clone()
        wanted[kept] = self.model.predict_of_base(batch.at(kept)).to(wanted.dtype)
        return wanted

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the squared error on clips of one kind by tenth of the timesteps, lowest noise first."""
        model, clips = self.model, self.clips[name]
        model.adapters.clear_masks()
        pairs = [(clip, tenth) for clip in clips for tenth in range(DECILES)]
        own = share_of(len(pairs), self.accelerator.process_index, self.accelerator.num_processes)
        sums = torch.zeros(DECILES, device=model.device)
        for start in range(own.start, own.stop, self.data.settings.batch):
            piece = pairs[start : min(start + self.data.settings.batch, own.stop)]
            batch = self.data.fixed_batch(piece).to(model.device, model.dtype)
            errors = squared_error(model.predict(batch), batch.target)
            sums.index_add_(0, torch.tensor([tenth for _, tenth in piece], device=model.device), errors)
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, reduction="sum")
        return [float(value) / len(clips) for value in sums]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return how hard each part of the noise pulls."""
        return self.objective.pull_line(validation[TRAINED]) if TRAINED in validation else ""

    def save(self, path: Path, step: int) -> None:
        """Write the LoRA to one file, in kohya's names."""
        write_adapters(self.model.adapters, self.header, path, step, "kohya")

    def save_result(self, folder: Path, step: int) -> None:
        """Write the LoRA in both dialects."""
        write_adapters(self.model.adapters, self.header, folder / LORA_NAME, step, "kohya")
        write_adapters(self.model.adapters, self.header, folder / DIFFUSERS_NAME, step, "diffusers")


class Objective:
    """From prediction to loss in a run of `steps` steps, with what is worth logging beside it."""

    def __init__(self, settings: LossSettings, diffusion: Diffusion, steps: int) -> None:
        self.settings, self.alphas_cumprod, self.steps = settings, diffusion.alphas_cumprod, steps
        self.loss = LOSSES[settings.kind]
        snr = signal_to_noise(diffusion.alphas_cumprod)
        self.weights = snr_weights(snr, settings.weighting, diffusion.prediction, settings.gamma).float()
        self.deltas = self._delta(0, torch.arange(len(snr)))

    def to(self, device: torch.device) -> "Objective":
        """Move the tables to a device."""
        self.weights, self.deltas = self.weights.to(device), self.deltas.to(device)
        return self

    def __call__(self, prediction: Tensor, batch: Batch, step: int, wanted: Tensor | None = None) -> Losses:
        """Return the losses of a batch at a step, each weighed by its timestep and its example.

        `wanted` is what is to be predicted in place of the batch's target; the squared error is of the target always.
        """
        delta = self.delta(step, batch.timesteps)
        target = batch.target if wanted is None else wanted
        losses = self.loss.of_samples(prediction, target, delta, self.settings.huber.normalise)
        squared = squared_error(prediction.detach(), batch.target)
        tenth = F.one_hot(batch.timesteps * DECILES // TIMESTEPS, DECILES).float()
        logged = {"squared_error": Mean.of(squared), "by_timestep": Mean(squared @ tenth, tenth.sum(dim=0))}
        if self.loss.has_delta:
            logged["delta"] = Mean.of(delta)
        return Losses(losses * (self.weights[batch.timesteps] * batch.weights), batch.sources, logged)

    def delta(self, step: int, timesteps: Tensor) -> Tensor:
        """Return delta of each sample; tables and plain numbers, so that a GPU is not waited for."""
        if self.settings.huber.axis == "timestep":
            return self.deltas[timesteps.to(self.deltas.device)]
        value = float(self._delta(step, torch.zeros(1, dtype=torch.int64)))
        return torch.full(timesteps.shape, value, device=timesteps.device)

    def _delta(self, step: int, timesteps: Tensor) -> Tensor:
        course = self.settings.huber.model_dump(exclude={"normalise"})
        return huber_delta(step, self.steps, timesteps, self.alphas_cumprod, **course)

    def pull_line(self, squared: Sequence[float]) -> str:
        """Return how hard each tenth of the timesteps pulls at first (1 = squared error), given the base's errors."""
        width = len(self.alphas_cumprod) // len(squared)
        timesteps = torch.arange(len(squared)) * width + width // 2
        pull = self.loss.pull(torch.tensor(squared).sqrt(), self.delta(0, timesteps).cpu())
        pull = pull * self.weights.cpu()[timesteps]
        return "pull by timestep, low noise first (1 = squared error): " + " ".join(f"{each:.2f}" for each in pull)

    def warning(self) -> str | None:
        """Return what is doubtful about the settings, or None."""
        smallest = min(self.settings.huber.start, self.settings.huber.end) if self.loss.has_delta else None
        if not counts_twice(self.settings.weighting, smallest):
            return None
        return (
            f"loss: weighting {self.settings.weighting!r} and Huber down to delta {smallest:g} both hold back "
            "low-noise timesteps; set loss.weighting to none unless that is meant"
        )


def choose_clips(
    splits: Mapping[str, Sequence[CachedExample]], clips: int, seed: int
) -> dict[str, list[CachedExample]]:
    """Return up to `clips` clips of each kind to judge: held out, trained, regularisation if there is any."""
    kinds = {HELD_OUT: "validation", TRAINED: "train", "regularization": "regularization"}
    chosen = {}
    for kind, split in kinds.items():
        examples = splits.get(split, ())
        order = numpy_generator(seed, "validation clips", kind).permutation(len(examples))[:clips]
        if len(order):
            chosen[kind] = [examples[index] for index in sorted(order)]
    return chosen

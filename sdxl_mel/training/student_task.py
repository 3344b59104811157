"""A smaller UNet as a task: it learns to predict what a teacher predicts, from its outputs and what it attends to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from sdxl_mel.diffusion.conditioning import TextEmbeddings, unet_conditions
from sdxl_mel.diffusion.losses import squared_error
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.files.cache import CachedExample
from sdxl_mel.models.student import Feature, Student
from sdxl_mel.training.batches import DECILES, Batch, TrainingData
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.drawn_points import DrawnPoints, with_points
from sdxl_mel.training.student_settings import StudentLossSettings
from sdxl_mel.training.task import Losses, Mean, share_of


@dataclass(frozen=True)
class Teacher:
    """The frozen UNet, its sizes (see `Model.time_ids`), and the guidance at which it is drawn."""

    unet: Any
    time_ids: Tensor | None
    guidance: float

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype in which it computes."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Return the device on which it computes."""
        device: torch.device = self.unet.device
        return device


class StudentTask:
    """A smaller UNet as a Task (see `training.task.Task`); `clips` are those that are judged, by what they are."""

    judged_by = "squared error to the teacher"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        data: TrainingData,
        loss: StudentLossSettings,
        *,
        rate: float,
        clips: Mapping[str, Sequence[CachedExample]],
        write: Callable[[Path], None],
        accelerator: Accelerator,
        drawn: DrawnPoints | None = None,
    ) -> None:
        self.student, self.teacher, self.data, self.loss, self.drawn = student, teacher, data, loss, drawn
        self.rate, self.clips, self.write, self.accelerator = rate, clips, write, accelerator
        self.parameters = dict(student.unet.named_parameters())
        self.judged = tuple(clips)
        self.empty = TextEmbeddings(*(each[None] for each in data.cache.text(data.cache.header.empty_text)))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> Batch:
        """Return cached latents with noise, and their captions, some replaced by points of trajectories."""
        batch = self.data.batch(step, places)
        return batch if self.drawn is None else with_points(batch, self.drawn)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Return the errors of a batch: of both predictions, of the guided one, and of what is attended to."""
        batch = batch.to(self.accelerator.device, torch.float32)
        twice = _with_and_without(batch, self.empty)
        features = self.student.features if self.loss.features else ()
        with torch.no_grad(), outputs_of(self.teacher.unet, [each.teacher for each in features]) as theirs:
            wanted = self._predict(self.teacher.unet, twice, self.teacher.dtype)
        with outputs_of(self.student.unet, [each.student for each in features]) as ours:
            made = self._predict(self.student.unet, twice, torch.float32)
        error = made - wanted
        caption, empty = error.chunk(2)
        output = (caption.square() + empty.square()).mean(dim=(1, 2, 3)) / 2
        guided = guided_by(caption, empty, self.teacher.guidance).square().mean(dim=(1, 2, 3))
        attended = relative_error(features, ours, theirs) if features else torch.zeros_like(output)
        each = output + self.loss.guided * guided + self.loss.features * attended
        logged = {
            "squared_error": Mean.of(output.detach()),
            "guided": Mean.of(guided.detach()),
            "features": Mean.of(attended.detach()),
        }
        return Losses(each * batch.weights, batch.sources, logged)

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the squared error on clips of one kind by tenth of the timesteps, lowest noise first."""
        clips, size = self.clips[name], self.data.settings.batch
        pairs = [(clip, tenth) for clip in clips for tenth in range(DECILES)]
        own = share_of(len(pairs), self.accelerator.process_index, self.accelerator.num_processes)
        sums = torch.zeros(DECILES, device=self.accelerator.device)
        for start in range(own.start, own.stop, size):
            piece = pairs[start : min(start + size, own.stop)]
            batch = self.data.fixed_batch(piece).to(self.accelerator.device, torch.float32)
            wanted = self._predict(self.teacher.unet, batch, self.teacher.dtype)
            errors = squared_error(self._predict(self.student.unet, batch, torch.float32), wanted)
            sums.index_add_(0, torch.tensor([tenth for _, tenth in piece], device=sums.device), errors)
        return [value / len(clips) for value in over_processes(self.accelerator, sums)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the weights to one file."""
        with atomic_path(path) as temporary:
            save_file({name: each.detach().contiguous() for name, each in self.parameters.items()}, temporary)

    def save_result(self, folder: Path, step: int) -> None:
        """Write the base with the smaller UNet."""
        self.write(folder)

    def _predict(self, unet: Any, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return what a UNet predicts, float32; weights in float32 compute in the teacher's dtype."""
        assert isinstance(batch.text, TextEmbeddings)
        text = TextEmbeddings(*(each.to(dtype) for each in batch.text))
        with self._precision(dtype):
            prediction = unet(
                batch.noisy.to(dtype),
                batch.timesteps,
                **unet_conditions(text, self.teacher.time_ids),
                return_dict=False,
            )[0]
        result: Tensor = prediction.float()
        return result

    def _precision(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        mixed = dtype == torch.float32 and self.teacher.dtype == torch.bfloat16
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=mixed)


def guided_by(caption: Tensor, empty: Tensor, guidance: float) -> Tensor:
    """Return the guided prediction, or, as it is linear, the error of one from the errors of both predictions."""
    return empty + guidance * (caption - empty)


def relative_error(features: Sequence[Feature], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """Return the mean over features of the squared error in units of the mean square that is wanted, (batch,).

    Outputs are (2 batch, tokens, channels): those with the caption, then those without.
    """
    errors = []
    for each in features:
        wanted = theirs[each.teacher].float()[..., each.channels.to(theirs[each.teacher].device)]
        error = (ours[each.student].float() - wanted).square().mean(dim=(1, 2))
        errors.append(error / wanted.square().mean(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny))
    return torch.stack(errors).mean(dim=0).view(2, -1).mean(dim=0)


@contextmanager
def outputs_of(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield what becomes the outputs of some modules by path while the block runs."""
    found: dict[str, Tensor] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[path] = output

        return hook

    handles = [model.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _with_and_without(batch: Batch, empty: TextEmbeddings) -> Batch:
    """Return a batch twice, first with its captions and then with the empty one."""
    assert isinstance(batch.text, TextEmbeddings)
    none = (each.to(own.device).expand_as(own) for each, own in zip(empty, batch.text))
    return Batch(
        slots=batch.slots * 2,
        sources=batch.sources * 2,
        noisy=batch.noisy.repeat(2, 1, 1, 1),
        target=batch.target.repeat(2, 1, 1, 1),
        timesteps=batch.timesteps.repeat(2),
        weights=batch.weights.repeat(2),
        text=TextEmbeddings(*(torch.cat([own, each]) for own, each in zip(batch.text, none))),
    )

"""Smaller text encoders as a task: they learn to make of captions the embeddings that a base's own make of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from sdxl_mel.captions.variants import split_tags
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.models.base import Base
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.seeding import numpy_generator
from sdxl_mel.training.distillation import over_processes
from sdxl_mel.training.task import Losses, Mean, share_of

MEASURED_ON = 64
"""Captions over which channels are seen to vary."""
LEAST_VARIANCE = 1e-4
"""Of the largest of all channels: a channel that hardly varies is not blown up."""


@dataclass(frozen=True)
class Captions:
    """What is drawn for a step: whole captions of `texts`, a share `mixed` of them put together from two."""

    texts: Sequence[str]
    anchor: str
    mixed: float
    batch: int
    seed: int

    def at(self, step: int, place: int) -> str:
        """Return the caption at a place of a step's batch."""
        generator = numpy_generator(self.seed, "caption to embed", step, place)
        one, two = (self.texts[int(index)] for index in generator.integers(len(self.texts), size=2))
        if generator.random() >= self.mixed:
            return one
        tags = list(dict.fromkeys(tag for text in (one, two) for tag in split_tags(text, self.anchor)[1]))
        if not tags:
            return one
        order = generator.permutation(len(tags))[: 1 + int(generator.integers(len(tags)))]
        return ", ".join([*([self.anchor] if self.anchor else []), *(tags[index] for index in order)])


class TextEncoderTask:
    """Smaller text encoders as a Task (see `training.task.Task`); `judged_texts` are captions by what they are."""

    judged_by = "relative error"
    extra_state: Mapping[str, Tensor] = {}

    def __init__(
        self,
        student: Base,
        teacher: Base,
        captions: Captions,
        *,
        clip_skip: int,
        pooled: float,
        rate: float,
        judged_texts: Mapping[str, Sequence[str]],
        write: Callable[[Path], None],
        accelerator: Accelerator,
        dtype: torch.dtype,
    ) -> None:
        self.student, self.teacher, self.captions, self.clip_skip = student, teacher, captions, clip_skip
        self.pooled, self.rate, self.judged_texts, self.write = pooled, rate, judged_texts, write
        self.accelerator, self.dtype = accelerator, dtype
        parts = [component.part for component in student.family.text_encoders]
        self.modules = nn.ModuleDict({part: student.models[part] for part in parts})
        self.parameters = dict(self.modules.named_parameters())
        self.judged = tuple(judged_texts)
        self.variances = self._variances()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters at one rate."""
        return [{"params": list(self.parameters.values()), "lr": self.rate}]

    def batch(self, step: int, places: range) -> list[str]:
        """Return captions."""
        return [self.captions.at(step, place) for place in places]

    def losses(self, batch: list[str], step: int) -> Losses:
        """Return the errors of the embeddings of each caption."""
        tokens, pooled = self._errors(batch)
        logged = {"tokens": Mean.of(tokens.detach()), "pooled": Mean.of(pooled.detach())}
        return Losses(tokens + self.pooled * pooled, batch, logged)

    @torch.no_grad()
    def validate(self, name: str) -> list[float]:
        """Return the mean errors of tokens and of pooled embeddings for captions of one kind."""
        texts, size = self.judged_texts[name], self.captions.batch
        own = share_of(len(texts), self.accelerator.process_index, self.accelerator.num_processes)
        totals = torch.zeros(2, device=self.accelerator.device)
        for start in range(own.start, own.stop, size):
            totals += torch.stack([each.sum() for each in self._errors(texts[start : min(start + size, own.stop)])])
        return [value / len(texts) for value in over_processes(self.accelerator, totals)]

    def remark(self, validation: Mapping[str, Sequence[float]]) -> str:
        """Return nothing."""
        return ""

    def save(self, path: Path, step: int) -> None:
        """Write the weights of all text encoders to one file."""
        with atomic_path(path) as temporary:
            save_file({name: each.detach().contiguous() for name, each in self.parameters.items()}, temporary)

    def save_result(self, folder: Path, step: int) -> None:
        """Write the base with the smaller text encoders."""
        self.write(folder)

    def _errors(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (errors of the tokens, of the pooled embeddings) of each text, in units of the teacher's variance.

        Padding counts as any token does: the UNet attends to all of them.
        """
        with torch.no_grad():
            wanted = self._encoded(self.teacher, texts)
        made = self._encoded(self.student, texts)
        squares = [(one - other).square() / size for one, other, size in zip(made, wanted, self.variances)]
        tokens, pooled = squares
        return tokens.mean(dim=(1, 2)), pooled.mean(dim=1) if pooled.numel() else tokens.new_zeros(len(texts))

    def _encoded(self, base: Base, texts: Sequence[str]) -> TextEmbeddings:
        with self._precision():
            made = encode_prompts(base, texts, self.clip_skip)
        return TextEmbeddings(*(each.float() for each in made))

    @torch.no_grad()
    def _variances(self) -> TextEmbeddings:
        """Return the variance of each channel over some captions of the teacher's."""
        texts = self.captions.texts[:: -(-len(self.captions.texts) // MEASURED_ON)]
        made = self._encoded(self.teacher, ["", *texts])
        variances = (each.flatten(0, -2).var(dim=0) for each in made)
        return TextEmbeddings(*(each.clamp_min(LEAST_VARIANCE * max(each.tolist(), default=0)) for each in variances))

    def _precision(self) -> AbstractContextManager[Any]:
        """Return a context that computes in bfloat16 if that is wanted; all weights are float32."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

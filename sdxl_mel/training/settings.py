"""The settings that the training runs of all tasks share."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from sdxl_mel.config import UNRECORDED, Settings, StageConfig
from sdxl_mel.diffusion.options import RateShape
from sdxl_mel.training.optimizers import OptimizerName

Kind = TypeVar("Kind")
Share = Annotated[float, Field(ge=0, le=1)]
Chance = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
TaskName = Literal["lora", "steps", "student", "text-encoder", "small-decoder", "decoder", "refiner"]
"""What can be trained: the rows of `tasks.TASKS`."""
ChosenTask = Annotated[TaskName, Field(description="what is trained; --task NAME --help shows its own settings")]


class OptimizerSettings(Settings):
    """How weights are moved."""

    name: OptimizerName = "adamw"
    """optimizer"""
    rate: Positive = 1e-4
    """learning rate (1 for prodigy)"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """decay of the weights"""
    beta1: Chance = 0.9
    """memory of the gradient"""
    beta2: Chance = 0.99
    """memory of its square"""
    epsilon: Positive = 1e-8
    """added to the root of the square"""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """longest gradient, 0 = no limit"""
    schedule: RateShape = "cosine"
    """course of the rate after the warm-up"""
    warmup: Count = 0
    """steps of linear warm-up"""
    final: Share = 0.0
    """share of the rate at the last step"""


class AdapterSettings(Settings):
    """The LoRA."""

    rank: AtLeastOne = 32
    """rank of every adapter"""
    alpha: Positive | None = None
    """scale is alpha / rank; none = the rank"""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("all-linear",)
    """layers of the UNet: all-linear, attention, each with +conv, or patterns over module paths"""
    rank_patterns: dict[str, AtLeastOne] = {}
    """other ranks for the layers whose path matches a pattern"""
    init: Annotated[Path | None, UNRECORDED] = None
    """LoRA to start from; it must have these layers, ranks and scales"""

    @property
    def alpha_or_rank(self) -> float:
        """Return alpha, or the rank where none is given."""
        return self.alpha if self.alpha is not None else float(self.rank)


class AverageSettings(Settings):
    """Moving averages of what is trained, to choose from at the end."""

    lengths: tuple[Annotated[float, Field(ge=1e-4, lt=0.288)], ...] = ()
    """widths as a share of the training, e.g. 0.05 0.1 (EDM2's sigma_rel)"""
    feedback_every: Count = 0
    """move the weights towards the longest average every so many steps, 0 = never"""
    feedback_share: Share = 1.0
    """how far"""


class ValidationSettings(Settings):
    """Loss with fixed noise on held-out tracks."""

    every: Count = 100
    """steps between validations, 0 = never"""
    clips: AtLeastOne = 32
    """clips of each group: held out, and the same number of trained ones"""
    gap: Positive = 0.25
    """alarm when the held-out loss exceeds that of trained clips by more than this share"""
    patience: Count = 0
    """stop after so many validations without a better one, 0 = never"""


class HardwareSettings(Settings):
    """What the machine can do; none of it changes what is learnt beyond rounding."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """dtype of what is frozen and of the computation; what is trained is float32 always"""
    gradient_checkpointing: Annotated[bool, UNRECORDED] = False
    """keep a tenth of the activations, take the way forward twice"""
    compile: bool = False
    """compile the blocks of the UNet (minutes at the start)"""
    tf32: bool = True
    """let an NVIDIA card multiply float32 in TF32"""
    channels_last: bool | None = None
    """memory layout of the convolutions; none = where it helps"""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop is told, whatever the task: how many steps of how much, how, and what is due when."""

    steps: int
    batch: int
    micro_batch: int | None = None
    save_every: int = 250
    keep: int = 3
    sample_every: int = 0
    optimizer: OptimizerSettings = OptimizerSettings()
    averages: AverageSettings = AverageSettings()
    validation: ValidationSettings = ValidationSettings()


class TrainingConfig(StageConfig):
    """The settings of a run, whatever its task; a task's own Config adds to them."""

    task: ChosenTask
    base: Annotated[str, UNRECORDED]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    out: Annotated[Path, UNRECORDED]
    """folder of the run"""
    steps: AtLeastOne = 1000
    """optimizer steps"""
    batch: Annotated[int, Field(ge=1, le=1 << 20)] = 8
    """examples of one optimizer step, over all devices"""
    micro_batch: Annotated[AtLeastOne | None, UNRECORDED] = None
    """most examples a device takes at once; none = all of its share"""
    seed: int = 0
    """seed of everything that is drawn"""
    save_every: Annotated[AtLeastOne, UNRECORDED] = 250
    """steps between saved states and checkpoints"""
    keep: Annotated[AtLeastOne, UNRECORDED] = 3
    """saved states that are kept"""
    resume: Annotated[bool, UNRECORDED] = False
    """go on with the run in --out"""
    resume_with_changes: Annotated[bool, UNRECORDED] = False
    """go on although settings changed; the change is recorded"""
    dry_run: Annotated[bool, UNRECORDED] = False
    """print the resolved run and its estimates, and stop"""
    push_to_hub: Annotated[str | None, UNRECORDED] = None
    """hub repository that gets the finished run"""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], UNRECORDED] = ("tensorboard",)
    """where curves go besides metrics.jsonl"""
    optimizer: OptimizerSettings = OptimizerSettings()
    averages: AverageSettings = AverageSettings()
    validation: ValidationSettings = ValidationSettings()
    hardware: HardwareSettings = HardwareSettings()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.task != (own := type(self).model_fields["task"].default):
            raise ValueError(f"task: found {self.task!r}; these are the settings of {own!r}")
        if self.averages.feedback_every and not self.averages.lengths:
            raise ValueError("averages.feedback_every needs averages.lengths")
        if self.averages.lengths and self.optimizer.name == "schedule-free":
            raise ValueError("averages.lengths: schedule-free averages by itself; leave one of the two out")
        if self.validation.patience and not self.validation.every:
            raise ValueError("validation.patience needs validation.every")
        return self

    @property
    def loop(self) -> LoopSettings:
        """Return what the loop is told."""
        return self.picked(LoopSettings)

    def picked(self, kind: type[Kind], **more: Any) -> Kind:
        """Return the settings that a dataclass has fields for, and `more`, as one of it."""
        names = {field.name for field in fields(kind)} & type(self).model_fields.keys()  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names}, **more)

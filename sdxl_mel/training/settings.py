"""The settings of a training run."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sdxl_mel.config import UNRECORDED, Settings, StageConfig
from sdxl_mel.diffusion.options import Axis, Distribution, LossName, Normalise, RateShape, Shape, Weighting
from sdxl_mel.training.optimizers import OptimizerName

Share = Annotated[float, Field(ge=0, le=1)]
Chance = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Posterior = Literal["sample", "mean"]


class HuberSettings(Settings):
    """Delta of the pseudo-Huber loss, from start to end."""

    start: Positive = 0.15
    """delta at step 0, or at timestep 0"""
    end: Positive = 0.05
    """delta at the last step, or at the noisiest timestep"""
    axis: Axis = "step"
    """along the training steps or along the noise timesteps"""
    shape: Shape = "linear"
    """course between the ends; snr needs the axis timestep"""
    normalise: Normalise = "mse"
    """scaled like squared error at small residuals, or like twice the absolute error at large ones"""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.shape == "snr" and self.axis == "step":
            raise ValueError("shape 'snr' needs axis 'timestep'; a training step has no noise level")
        return self


class LossSettings(Settings):
    """What is minimised."""

    kind: LossName = "l2"
    """squared error, or pseudo-Huber with the course of loss.huber"""
    huber: HuberSettings = HuberSettings()
    weighting: Weighting = "min-snr"
    """weight of each timestep by its signal-to-noise ratio"""
    gamma: Positive = 5.0
    """gamma of min-snr"""


class NoiseSettings(Settings):
    """The noise that is added."""

    offset: Annotated[float, Field(ge=0)] = 0.0
    """strength of a level common to a whole channel (SDXL itself was trained with 0.05)"""
    random_offset: bool = False
    """draw each sample's strength between 0 and offset"""
    adaptive_offset: float = 0.0
    """more (or less) offset with the mean of the latent"""
    multires_iterations: Count = 0
    """levels of coarser noise, 0 = none"""
    multires_discount: Chance = 0.3
    """strength of each coarser level against the one before"""
    perturbation: Annotated[float, Field(ge=0)] = 0.0
    """extra noise in the input alone (input perturbation; its paper uses 0.1)"""


class TimestepSettings(Settings):
    """Which timesteps are trained."""

    stratified: bool = True
    """spread the timesteps of a step evenly: one in each of `batch` equal parts"""
    distribution: Distribution = "uniform"
    """how often each timestep is trained"""
    mean: float = 0.0
    """mean of logit-normal"""
    std: Positive = 1.0
    """deviation of logit-normal"""
    low: Count = 0
    """first timestep that is trained"""
    high: Annotated[int, Field(ge=1, le=1000)] = 1000
    """end of the timesteps that are trained"""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class RegularizationSettings(Settings):
    """Examples of the split `regularization`, which keep what the base can do."""

    share: Chance = 0.0
    """share of all examples: of the first n trained, exactly floor(n * share) are of this split"""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """weight of their loss"""
    caption_dropout: Share | None = None
    """share of them trained with the empty caption, none = as of all; it keeps what guidance moves away from"""


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
    rslora: bool = False
    """scale by alpha / sqrt(rank) instead"""
    dora: bool = False
    """learn magnitudes too (slower)"""
    rank_dropout: Chance = 0.0
    """chance of each rank to sit out, drawn for each sample"""
    module_dropout: Chance = 0.0
    """chance of each adapter to sit out a step"""
    text_encoders: tuple[Literal["text_encoder", "text_encoder_2"], ...] = ()
    """text encoders to train as well (their captions are then encoded at every step)"""
    text_targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("all-linear",)
    """layers of the text encoders"""
    init: Annotated[Path | None, UNRECORDED] = None
    """LoRA to start from; it must have these layers, ranks and scales"""

    @property
    def alpha_or_rank(self) -> float:
        """Return alpha, or the rank where none is given."""
        return self.alpha if self.alpha is not None else float(self.rank)


class OptimizerSettings(Settings):
    """How weights are moved."""

    name: OptimizerName = "adamw"
    """optimizer"""
    rate: Positive = 1e-4
    """learning rate of the UNet's adapters (1 for prodigy)"""
    text_encoder_rate: Positive | None = None
    """rate of the first text encoder's; none = half of rate"""
    text_encoder_2_rate: Positive | None = None
    """rate of the second text encoder's; none = half of rate"""
    lora_plus: Positive = 1.0
    """how many times faster `up` learns than `down` (LoRA+)"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """decay of the adapters"""
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


class AverageSettings(Settings):
    """Moving averages of the adapters, to choose from at the end."""

    lengths: tuple[Annotated[float, Field(gt=0, lt=0.288)], ...] = ()
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


class SampleSettings(Settings):
    """Pictures and their sound while training."""

    every: Count = 0
    """steps between samples, 0 = none"""
    prompts: tuple[str, ...] = ()
    """prompts, put behind the anchor; none = captions of held-out clips"""
    count: AtLeastOne = 4
    """samples each time"""
    steps: AtLeastOne = 25
    """sampling steps"""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """classifier-free guidance, none = what the base says is good, 5 where it says nothing"""
    diversity: Share = 0.5
    """alarm when samples differ less than this share of how they differed at first"""


class HardwareSettings(Settings):
    """What the machine can do; none of it changes what is learnt beyond rounding."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """dtype of the frozen base and of the computation; adapters are float32 always"""
    gradient_checkpointing: Annotated[bool, UNRECORDED] = False
    """keep a tenth of the activations, compute a third more"""
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


@dataclass(frozen=True)
class DataSettings:
    """What is drawn for every example of a batch of `batch`."""

    batch: int
    seed: int = 0
    caption_dropout: float = 0.1
    caption_variants: int | None = None
    posterior: Posterior = "sample"
    noise: NoiseSettings = NoiseSettings()
    timesteps: TimestepSettings = TimestepSettings()
    regularization: RegularizationSettings = RegularizationSettings()


class Config(StageConfig):
    """Train a LoRA on a cache of spectrograms. Start it with `accelerate launch` for several devices."""

    base: Annotated[str, UNRECORDED]
    """base model: hub id, diffusers folder, .safetensors file or mini"""
    cache: Annotated[Path, UNRECORDED]
    """cache that sdxl-mel cache made"""
    out: Annotated[Path, UNRECORDED]
    """folder of the run"""
    steps: AtLeastOne = 1000
    """optimizer steps"""
    batch: AtLeastOne = 8
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
    caption_dropout: Share = 0.1
    """share of examples trained with the empty caption"""
    caption_variants: AtLeastOne | None = None
    """how many of each clip's cached wordings are used, none = all"""
    posterior: Posterior = "sample"
    """draw each latent anew from what the VAE says of the picture, or take its mean"""
    vae: Annotated[str | None, UNRECORDED] = None
    """VAE that replaces the base's own (as in the cache)"""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], UNRECORDED] = ("tensorboard",)
    """where curves go besides metrics.jsonl"""
    adapter: AdapterSettings = AdapterSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    loss: LossSettings = LossSettings()
    noise: NoiseSettings = NoiseSettings()
    timesteps: TimestepSettings = TimestepSettings()
    regularization: RegularizationSettings = RegularizationSettings()
    averages: AverageSettings = AverageSettings()
    validation: ValidationSettings = ValidationSettings()
    samples: SampleSettings = SampleSettings()
    hardware: HardwareSettings = HardwareSettings()

    @model_validator(mode="after")
    def _possible(self) -> Self:
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
        return LoopSettings(**self._shared_with(LoopSettings), sample_every=self.samples.every)

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example."""
        return DataSettings(**self._shared_with(DataSettings))

    def _shared_with(self, kind: type) -> dict[str, Any]:
        """Return the settings that a dataclass has fields for, by name."""
        return {field.name: getattr(self, field.name) for field in fields(kind) if hasattr(self, field.name)}

"""The settings of training a LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.diffusion.options import Axis, Distribution, LossName, Normalise, Shape, Weighting
from sdxl_mel.training.settings import (
    AdapterSettings,
    AtLeastOne,
    Chance,
    ChosenTask,
    Count,
    LoopSettings,
    OptimizerSettings,
    Positive,
    Share,
    TrainingConfig,
)

Posterior = Literal["sample", "mean"]
RegularizationTarget = Literal["noise", "base"]


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
    target: Annotated[RegularizationTarget, Before("caption_dropout")] = "noise"
    """what they are trained to predict: their noise (or v), or what the base without the LoRA predicts of them"""
    caption_dropout: Share | None = None
    """share of them trained with the empty caption, none = as of all; it keeps what guidance moves away from"""


class LoraAdapterSettings(AdapterSettings):
    """The LoRA."""

    rslora: Annotated[bool, Before("init")] = False
    """scale by alpha / sqrt(rank) instead"""
    dora: Annotated[bool, Before("init")] = False
    """learn magnitudes too (slower)"""
    rank_dropout: Annotated[Chance, Before("init")] = 0.0
    """chance of each rank to sit out, drawn for each sample"""
    module_dropout: Annotated[Chance, Before("init")] = 0.0
    """chance of each adapter to sit out a step"""
    text_encoders: Annotated[tuple[Literal["text_encoder", "text_encoder_2"], ...], Before("init")] = ()
    """text encoders to train as well (their captions are then encoded at every step)"""
    text_targets: Annotated[tuple[str, ...], Field(min_length=1), Before("init")] = ("all-linear",)
    """layers of the text encoders"""


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


class LoraOptimizerSettings(OptimizerSettings):
    """How the adapters are moved."""

    rate: Positive = 1e-4
    """learning rate of the UNet's adapters (1 for prodigy)"""
    text_encoder_rate: Annotated[Positive | None, Before("weight_decay")] = None
    """rate of the first text encoder's; none = half of rate"""
    text_encoder_2_rate: Annotated[Positive | None, Before("weight_decay")] = None
    """rate of the second text encoder's; none = half of rate"""
    lora_plus: Annotated[Positive, Before("weight_decay")] = 1.0
    """how many times faster `up` learns than `down` (LoRA+)"""


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


class Config(TrainingConfig):
    """Train a LoRA on a cache of spectrograms. Start it with `accelerate launch` for several devices."""

    # Files of runs do not say this one: older ones are of this task too.
    task: Annotated[ChosenTask, Field(exclude=True)] = "lora"
    cache: Annotated[Path, UNRECORDED, Before("out")]
    """cache that sdxl-mel cache made"""
    caption_dropout: Annotated[Share, Before("trackers")] = 0.1
    """share of examples trained with the empty caption"""
    caption_variants: Annotated[AtLeastOne | None, Before("trackers")] = None
    """how many of each clip's cached wordings are used, none = all"""
    posterior: Annotated[Posterior, Before("trackers")] = "sample"
    """draw each latent anew from what the VAE says of the picture, or take its mean"""
    vae: Annotated[str | None, UNRECORDED, Before("trackers")] = None
    """VAE that replaces the base's own (as in the cache)"""
    adapter: Annotated[LoraAdapterSettings, Before("optimizer")] = LoraAdapterSettings()
    optimizer: LoraOptimizerSettings = LoraOptimizerSettings()
    loss: Annotated[LossSettings, Before("averages")] = LossSettings()
    noise: Annotated[NoiseSettings, Before("averages")] = NoiseSettings()
    timesteps: Annotated[TimestepSettings, Before("averages")] = TimestepSettings()
    regularization: Annotated[RegularizationSettings, Before("averages")] = RegularizationSettings()
    samples: Annotated[SampleSettings, Before("hardware")] = SampleSettings()

    @property
    def loop(self) -> LoopSettings:
        """Return what the loop is told."""
        return self.picked(LoopSettings, sample_every=self.samples.every)

    @property
    def data(self) -> DataSettings:
        """Return what is drawn for every example."""
        return self.picked(DataSettings)

"""The settings of training a step adapter."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, Before, Settings
from sdxl_mel.diffusion.options import LossName
from sdxl_mel.synthesis.settings import listed
from sdxl_mel.training.settings import (
    AdapterSettings,
    AtLeastOne,
    ChosenTask,
    Positive,
    Share,
    TrainingConfig,
    ValidationSettings,
)

ObjectiveName = Literal["segments", "unrolled", "consistency"]
Measured = Literal["noise", "landing"]


class StepAdapterSettings(AdapterSettings):
    """The LoRA."""

    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("all-linear+conv",)
    """layers of the UNet: all-linear, attention, each with +conv, or patterns over module paths"""


class StepLossSettings(Settings):
    """What is minimised."""

    kind: LossName = "huber"
    """squared error, or pseudo-Huber"""
    delta: Positive = 0.1
    """residual from which pseudo-Huber grows like the absolute error"""
    measured: Measured = "noise"
    """error of what is predicted, or of where its jump lands, in units of the signal there (segments)"""


class StepValidationSettings(ValidationSettings):
    """Loss on trajectories that are not trained on."""

    clips: AtLeastOne = 32
    """trajectories that are held out, and as many trained ones that are judged; at most a quarter of all"""


class Config(TrainingConfig):
    """Train a step adapter: a LoRA that draws in few steps, without guidance, what its teacher draws with it.

    It learns from the teacher's trajectories (sdxl-mel trajectories): no audio, and no call of the teacher.
    """

    task: ChosenTask = "steps"
    lora: Annotated[tuple[str, ...], BeforeValidator(listed), UNRECORDED, Before("out")] = ()
    """LoRA of the teacher, as it drew the trajectories; FILE:0.8 states its scale"""
    trajectories: Annotated[Path, UNRECORDED, Before("out")]
    """folder that sdxl-mel trajectories made"""
    draw_steps: Annotated[tuple[AtLeastOne, ...], Field(min_length=1), Before("steps")] = (4,)
    """steps to draw in; several share the training, and the file asks for the first"""
    objective: Annotated[ObjectiveName, Before("steps")] = "segments"
    """segments: each step lands where the teacher was; unrolled: all steps of a drawing do; consistency: one end"""
    starts: Annotated[Share, Show.ADVANCED, Before("trackers")] = 0.75
    """share of examples at the start of a segment; the others start within one (segments)"""
    rollouts: Annotated[Share, Show.ADVANCED, Before("trackers")] = 0.0
    """share of later segments' examples that start where the adapter itself got to, not where the teacher was"""
    adapter: Annotated[StepAdapterSettings, Before("optimizer")] = StepAdapterSettings()
    loss: Annotated[StepLossSettings, Before("averages")] = StepLossSettings()
    validation: StepValidationSettings = StepValidationSettings()

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if self.objective == "consistency" and self.loss.measured == "landing":
            raise ValueError("loss.measured 'landing' is for segments and unrolled; a consistency model has one end")
        if self.objective != "segments" and self.rollouts:
            raise ValueError("rollouts need the objective 'segments'; the others have none")
        return self

"""How a picture is drawn: samplers by name, few-step kinds of models, timesteps. Settings read it without torch."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss

SAMPLERS: Mapping[str, str] = {
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
}
"""diffusers' scheduler of each sampler; its others go by their class names."""
KARRAS = {"use_karras_sigmas": True}
SCHEDULER_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Without these sigmas DPM++ leaves SDXL noisy under 50 steps (huggingface/diffusers#5433).
    "DPMSolverMultistepScheduler": KARRAS,
    "DPMSolverSinglestepScheduler": KARRAS,
}
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""For few-step models; they take SDXL's noise schedule though diffusers does not list them beside its own."""
ZERO_SNR = "rescale_betas_zero_snr"
"""The setting of diffusers' schedulers that takes the last of the signal away (arXiv 2305.08891, algorithm 1)."""

Merge = Literal["swap", "average", "roll"]
"""What the views of a long piece do where they overlap; see `long_form.JointPredictor`."""
Spacing = Literal["leading", "linspace", "trailing"]
"""How the steps lie among the training timesteps (arXiv 2305.08891, table 2); trailing begins at pure noise."""
Timesteps = Spacing | tuple[int, ...]
"""A spacing, or every timestep itself, falling."""
MOST_TIMESTEP = 999
NO_GUIDANCE = 1.0


def takes_zero_snr(kind: Any) -> bool:
    """Return whether diffusers' scheduler of this class can have zero terminal SNR."""
    return kind is not None and ZERO_SNR in inspect.signature(kind).parameters


@dataclass(frozen=True)
class Drawing:
    """How a model or a person asks for latents to be drawn; None = nothing is asked."""

    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    timesteps: Timesteps | None = None

    def filled(self, other: "Drawing") -> "Drawing":
        """Return this with what it leaves open as `other` asks for it."""
        return Drawing(**{name: theirs if ours is None else ours for name, ours, theirs in self._beside(other)})

    def differences(self, other: "Drawing") -> list[tuple[str, Any, Any]]:
        """Return (name, ours, theirs) of what both ask for and ask for differently."""
        return [each for each in self._beside(other) if None not in each and each[1] != each[2]]

    def _beside(self, other: "Drawing") -> list[tuple[str, Any, Any]]:
        return [(field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(Drawing)]


def is_few_step(drawing: Drawing) -> bool:
    """Return whether a model that asks for this is a few-step one: others ask for a guidance alone."""
    return drawing.sampler is not None or drawing.timesteps is not None


@dataclass(frozen=True)
class Sampling:
    """How latents are drawn: by default as SDXL in diffusers, in fewer steps.

    `guidance` 1 or 0 is none; `rescale` and `guidance_interval` (in noise levels, 0 = clean to 1 = noise) are those of
    `sampling.Guidance`. `timesteps` None is the spacing of the base's own scheduler.
    """

    sampler: str = "euler"
    steps: int = 30
    guidance: float = 5.0
    timesteps: Timesteps | None = None
    rescale: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)


SamplerPreset = Literal["turbo", "lightning", "hyper", "lcm"]
SAMPLER_PRESETS: Mapping[SamplerPreset, Drawing] = {
    "turbo": Drawing("euler_a", 4, NO_GUIDANCE, "trailing"),
    "lightning": Drawing("euler", 4, NO_GUIDANCE, "trailing"),
    "hyper": Drawing("ddim", 4, NO_GUIDANCE, "trailing"),
    # LCM has a spacing of its own.
    "lcm": Drawing("lcm", 4, NO_GUIDANCE),
}
"""What the cards of SDXL Turbo, SDXL-Lightning, Hyper-SD and LCM-LoRA ask for."""


class Settled(NamedTuple):
    """How to draw, and what was stated against what a model asks for."""

    sampling: Sampling
    notes: tuple[str, ...]


def settle(
    stated: Drawing, preset: SamplerPreset | None, asked: Sequence[tuple[str, Drawing]], usual: Drawing | None = None
) -> Settled:
    """Return how to draw: as stated, else as the preset asks, else as the first of the named models that asks.

    `usual` is what is done where nobody asks for anything.

    Raises InputError for a number of steps beside timesteps of another number.
    """
    sources = [*([] if preset is None else [(f"--sampler-preset {preset}", SAMPLER_PRESETS[preset])]), *asked]
    notes = [
        f"--{name} {_shown(ours)} instead of {_shown(theirs)}, for which {source} asks"
        for source, drawing in sources
        for name, ours, theirs in stated.differences(drawing)
    ]
    drawing = stated
    for _, each in sources:
        drawing = drawing.filled(each)
    drawing = drawing.filled(usual or Drawing())
    if isinstance(drawing.timesteps, tuple):
        count = len(drawing.timesteps)
        if stated.steps not in (None, count) and stated.timesteps is not None:
            raise InputError(f"--steps {stated.steps}: --timesteps names {count}; leave --steps out")
        # Another number of steps than a model's own lies where few-step models put theirs.
        several = stated.steps is None or stated.steps == count
        drawing = replace(drawing, steps=count) if several else replace(drawing, timesteps="trailing")
    found = {field.name: getattr(drawing, field.name) for field in fields(Drawing)}
    return Settled(Sampling(**{name: value for name, value in found.items() if value is not None}), tuple(notes))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return format_timesteps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_timesteps(text: str, where: str) -> Timesteps:
    """Return a spacing, or the timesteps of `999,749,499,249`. Raises InputError, naming `where`, for anything else."""
    spacings: tuple[Spacing, ...] = get_args(Spacing)
    for spacing in spacings:
        if text.strip() == spacing:
            return spacing
    try:
        steps = tuple(int(number) for number in text.replace(",", " ").split())
    except ValueError:
        steps = ()
    if not steps or list(steps) != sorted(set(steps), reverse=True) or not 0 <= steps[-1] <= steps[0] <= MOST_TIMESTEP:
        raise InputError(
            f"{where}: found {text!r}{near_miss(text, spacings)}; give {', '.join(spacings)}, or falling timesteps of "
            f"0 to {MOST_TIMESTEP} such as 999,749,499,249"
        )
    return steps


def format_timesteps(timesteps: Timesteps) -> str:
    """Return the text that `parse_timesteps` reads."""
    return timesteps if isinstance(timesteps, str) else ",".join(map(str, timesteps))

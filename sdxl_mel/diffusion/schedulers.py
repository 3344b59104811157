"""Samplers by their diffusers names, set up from the base's own scheduler."""

import inspect
from typing import Any

import diffusers
import torch

from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss

SHORT_NAMES = {
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
KARRAS = {"use_karras_sigmas": True}
EXTRAS: dict[str, dict[str, Any]] = {
    # Without these sigmas DPM++ leaves SDXL noisy under 50 steps (huggingface/diffusers#5433).
    "DPMSolverMultistepScheduler": KARRAS,
    "DPMSolverSinglestepScheduler": KARRAS,
}

DISTILLED = ("LCMScheduler", "TCDScheduler")
"""For few-step LoRAs; they take SDXL's noise schedule though diffusers does not list them beside its own."""


def make_scheduler(name: str, base_scheduler: Any) -> Any:
    """Return a fresh scheduler `name` (a diffusers class or a short name) with the noise schedule of the base's.

    Raises InputError that lists the names for what diffusers cannot put in its place.
    """
    kinds = (type(base_scheduler), *base_scheduler.compatibles, *(getattr(diffusers, each) for each in DISTILLED))
    known = {kind.__name__: kind for kind in kinds}
    kind = known.get(SHORT_NAMES.get(name, name)) or known.get(f"{name}Scheduler")
    if kind is None:
        names = [*SHORT_NAMES, *sorted(known)]
        raise InputError(f"--sampler: unknown sampler {name!r}{near_miss(name, names)}; known: {', '.join(names)}")
    return kind.from_config(base_scheduler.config, **EXTRAS.get(kind.__name__, {}))


def set_steps(scheduler: Any, steps: int, device: torch.device | str, strength: float = 1.0) -> torch.Tensor:
    """Set up `steps` steps and return the timesteps to walk; a `strength` below 1 walks the last part of them.

    Raises InputError for numbers of steps the scheduler cannot do, and for a strength that leaves no step.
    """
    if steps < 1:
        raise InputError(f"--steps: found {steps}; give 1 or more")
    try:
        scheduler.set_timesteps(steps, device=device)
    except ValueError as error:
        raise InputError(f"--steps: {type(scheduler).__name__} cannot do {steps} steps: {error}") from error
    walked = min(round(steps * strength), steps)
    if walked < 1:
        raise InputError(f"--strength {strength:g} of {steps} steps leaves none; give more of either")
    first = (steps - walked) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def step_options(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """Return the options of `scheduler.step`: samplers that add noise draw it from each tile's own generator."""
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": generators} if "generator" in accepted else {}


def noised(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return clean latents as they would look at `timestep`."""
    mixed: torch.Tensor = scheduler.add_noise(latents, noise, timestep.reshape(1).expand(len(latents)))
    return mixed

"""Noise to latents: our own loop around diffusers' schedulers.

A narrow seam: what is predicted at a step is a function given by the caller, so that single tiles and long pieces share
the loop, and every tile draws from its own generator, so that it does not depend on its batch.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings, unet_conditions
from sdxl_mel.diffusion.samplers import (
    DISTILLED,
    SAMPLERS,
    SCHEDULER_OPTIONS,
    ZERO_SNR,
    Timesteps,
    takes_zero_snr,
)
from sdxl_mel.errors import InputError
from sdxl_mel.names import near_miss
from sdxl_mel.seeding import torch_generator


def make_scheduler(name: str, base_scheduler: Any, timesteps: Timesteps | None = None) -> Any:
    """Return a fresh scheduler `name` (a diffusers class or one of SAMPLERS) with the noise schedule of the base's.

    The spacing is that of `timesteps` if it is one, else the base's own. Latents are clipped only where the base says
    so: to clip is diffusers' default for pictures (DDIM, DDPM). Raises InputError that lists the names for what
    diffusers cannot put in its place.
    """
    kinds = (type(base_scheduler), *base_scheduler.compatibles, *(getattr(diffusers, each) for each in DISTILLED))
    known = {kind.__name__: kind for kind in kinds}
    kind = known.get(SAMPLERS.get(name, name)) or known.get(f"{name}Scheduler")
    if kind is None:
        names = [*SAMPLERS, *sorted(known)]
        raise InputError(f"--sampler: unknown sampler {name!r}{near_miss(name, names)}; known: {', '.join(names)}")
    config = base_scheduler.config
    if config.get(ZERO_SNR) and not takes_zero_snr(kind):
        raise InputError(
            f"--sampler {name}: this base has zero terminal SNR, which diffusers' {kind.__name__} does not know; take "
            "euler or ddim"
        )
    said = config.keys() - set(config.get("_use_default_values", ()))
    options = dict(SCHEDULER_OPTIONS.get(kind.__name__, {}))
    if "clip_sample" not in said and "clip_sample" in inspect.signature(kind.__init__).parameters:
        options["clip_sample"] = False
    if isinstance(timesteps, str):
        options["timestep_spacing"] = timesteps
    return kind.from_config(config, **options)


def set_steps(
    scheduler: Any,
    steps: int,
    device: torch.device | str,
    strength: float = 1.0,
    timesteps: Timesteps | None = None,
) -> torch.Tensor:
    """Set up `steps` steps, or the `timesteps` that are given one by one, and return the timesteps to walk.

    A `strength` below 1 walks the last part of them. Raises InputError for what the scheduler cannot do, and for a
    strength that leaves no step.
    """
    if steps < 1:
        raise InputError(f"--steps: found {steps}; give 1 or more")
    given = None if timesteps is None or isinstance(timesteps, str) else list(timesteps)
    name = type(scheduler).__name__
    if given and "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise InputError(f"--timesteps: {name} takes no single timesteps; give trailing, or another --sampler")
    try:
        scheduler.set_timesteps(**({"timesteps": given} if given else {"num_inference_steps": steps}), device=device)
    except ValueError as error:
        flag = "--timesteps" if given else "--steps"
        raise InputError(f"{flag}: {name} cannot do {given or f'{steps} steps'}: {error}") from error
    count = len(given) if given else steps
    walked = min(round(count * strength), count)
    if walked < 1:
        raise InputError(f"--strength {strength:g} of {count} steps leaves none; give more of either")
    first = (count - walked) * scheduler.order
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


Predict = Callable[[Tensor, Tensor, int], Tensor]
"""(scaled noisy latents, timestep, step) -> what the model predicts, in the shape of the latents."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: `scale` 1 or 0 is none; `rescale` (arXiv 2305.08891, section 3.4) tames high scales.

    Timesteps below `start` or from `end` on are not guided (arXiv 2404.07724), and take half the time. The cards of
    few-step models write 0 for none, as diffusers' pipelines take it.
    """

    scale: float = 5.0
    rescale: float = 0.0
    start: float = 0.0
    end: float = math.inf

    def acts_at(self, timestep: float) -> bool:
        """Return whether this timestep is guided."""
        return self.scale not in (0.0, 1.0) and self.start <= timestep < self.end


@dataclass(frozen=True)
class Known:
    """Latents that are given, and how far each goes from there: `strength` 0 is kept, 1 is drawn anew.

    `strength` has the shape (1, 1, height, width), or 1 where it is the same everywhere. A latent is left alone until
    its own share of the steps is left, and drawn from then on (Differential Diffusion, arXiv 2306.00950).
    """

    latents: Tensor
    strength: Tensor


@dataclass(frozen=True)
class Denoiser:
    """A UNet with what it is told besides the latents: `time_ids` (None where it has none) and the unconditional text.

    `unconditional` is the encoded negative prompt, "" as a rule: one for all, or one each.
    """

    unet: Any
    time_ids: Tensor | None
    unconditional: TextEmbeddings
    guidance: Guidance

    def predict(self, latents: Tensor, timestep: Tensor, text: TextEmbeddings) -> Tensor:
        """Return the guided prediction for scaled noisy latents (batch, 4, height, width), fp32."""
        if not self.guidance.acts_at(float(timestep)):
            return self._forward(latents, timestep, text)
        count = len(latents)
        both = TextEmbeddings(
            *(torch.cat([none.expand_as(some), some]) for none, some in zip(self.unconditional, text))
        )
        without, given = self._forward(torch.cat([latents, latents]), timestep, both).split(count)
        guided = without + self.guidance.scale * (given - without)
        return rescaled(guided, given, self.guidance.rescale) if self.guidance.rescale else guided

    def _forward(self, latents: Tensor, timestep: Tensor, text: TextEmbeddings) -> Tensor:
        conditions = unet_conditions(text, self.time_ids)
        output = self.unet(latents.to(self.unet.dtype), timestep, **conditions, return_dict=False)
        prediction: Tensor = output[0].float()
        return prediction


def rescaled(guided: Tensor, given: Tensor, amount: float) -> Tensor:
    """Return the guided prediction brought `amount` of the way to the standard deviation of the conditional one."""
    dims = list(range(1, guided.ndim))
    same_spread = guided * (given.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    return amount * same_spread + (1 - amount) * guided


def draw_noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Return (len(seeds), *shape) normal noise on `device`; each seed's part is the same in every batch and device."""
    drawn = [torch.randn(tuple(shape), generator=torch_generator(seed, "noise")) for seed in seeds]
    return torch.stack(drawn).to(device)


def sample(
    scheduler: Any,
    steps: int,
    noise: Tensor,
    predict: Predict,
    *,
    seeds: Sequence[int],
    known: Known | None = None,
    timesteps: Timesteps | None = None,
    on_step: Callable[[Tensor], None] = lambda latents: None,
) -> Tensor:
    """Walk from `noise` (batch, 4, height, width) to clean latents; one of `seeds` per element feeds its later noise.

    Known latents go as far from what they are as their strength says, from the same everywhere (img2img) to 0 and 1
    (inpainting); until then they are noised to each step's level. `timesteps` given one by one take the place of
    `steps`. `on_step` is given the latents after every step.
    """
    strength = 1.0 if known is None else float(known.strength.max())
    walk = set_steps(scheduler, steps, noise.device, strength, timesteps)
    count = len(timesteps) if isinstance(timesteps, tuple) else steps
    options = step_options(scheduler, [torch_generator(seed, "steps") for seed in seeds])
    if known is not None and strength < 1.0:
        latents = noised(scheduler, known.latents.expand_as(noise), noise, walk[0])
    else:
        latents = noise * scheduler.init_noise_sigma
    with torch.inference_mode():
        for step, timestep in enumerate(walk):
            prediction = predict(scheduler.scale_model_input(latents, timestep), timestep, step)
            latents = scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]
            if known is not None:
                latents = _keep_known(latents, known, noise, scheduler, following=walk[step + 1 :], count=count)
            on_step(latents)
    return latents


def _keep_known(
    latents: Tensor, known: Known, noise: Tensor, scheduler: Any, *, following: Tensor, count: int
) -> Tensor:
    """Return latents in which those that were not free in this step are at the noise level of the one that follows."""
    kept = known.latents.expand_as(latents)
    if len(following):
        kept = noised(scheduler, kept, noise, following[:1])
    left = -(-len(following) // scheduler.order)
    return torch.where((known.strength * count).round() > left, latents, kept)

"""Noise to latents: our own loop around diffusers' schedulers.

A narrow seam: what is predicted at a step is a function given by the caller, so that single tiles and long pieces share
the loop, and every tile draws from its own generator, so that it does not depend on its batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.schedulers import noised, set_steps, step_options
from sdxl_mel.seeding import torch_generator

Predict = Callable[[Tensor, Tensor, int], Tensor]
"""(scaled noisy latents, timestep, step) -> what the model predicts, in the shape of the latents."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: `scale` 1 is none; `rescale` (arXiv 2305.08891, section 3.4) tames high scales.

    Timesteps below `start` or from `end` on are not guided (arXiv 2404.07724), and take half the time.
    """

    scale: float = 5.0
    rescale: float = 0.0
    start: float = 0.0
    end: float = math.inf

    def acts_at(self, timestep: float) -> bool:
        """Return whether this timestep is guided."""
        return self.scale != 1.0 and self.start <= timestep < self.end


@dataclass(frozen=True)
class Known:
    """Latents that are given: kept where `mask` (1, 1, height, width) is 0, drawn anew where it is 1."""

    latents: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Denoiser:
    """A UNet with what it is told besides the latents: `sizes` are SDXL's six, `unconditional` is the encoded ""."""

    unet: Any
    sizes: Tensor
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
        sizes = self.sizes.to(latents.device).expand(len(latents), -1)
        output = self.unet(
            latents.to(self.unet.dtype),
            timestep,
            encoder_hidden_states=text.hidden,
            added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes},
            return_dict=False,
        )
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
    strength: float = 1.0,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Walk from `noise` (batch, 4, height, width) to clean latents; one of `seeds` per element feeds its later noise.

    With `known` and a `strength` below 1 the walk starts from the known latents noised that far (img2img); where the
    known mask is 0 they are kept, noised to each step's level while the rest is drawn (inpainting).
    """
    timesteps = set_steps(scheduler, steps, noise.device, strength)
    options = step_options(scheduler, [torch_generator(seed, "steps") for seed in seeds])
    if known is not None and strength < 1.0:
        latents = noised(scheduler, known.latents.expand_as(noise), noise, timesteps[0])
    else:
        latents = noise * scheduler.init_noise_sigma
    with torch.inference_mode():
        for step, timestep in enumerate(timesteps):
            prediction = predict(scheduler.scale_model_input(latents, timestep), timestep, step)
            latents = scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]
            if known is not None:
                latents = _keep_known(latents, known, noise, scheduler, timesteps[step + 1 : step + 2])
            on_step()
    return latents


def _keep_known(latents: Tensor, known: Known, noise: Tensor, scheduler: Any, following: Tensor) -> Tensor:
    """Return latents with the known part at the noise level of the timestep that follows, clean after the last."""
    kept = known.latents.expand_as(latents)
    if len(following):
        kept = noised(scheduler, kept, noise, following)
    return known.mask * latents + (1 - known.mask) * kept

"""What a step is trained on, drawn slot by slot: the same numbers whatever device or micro-batch computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from sdxl_mel.diffusion.noise import perturbed, sample_noise
from sdxl_mel.diffusion.timesteps import timesteps_from, uniform_variates
from sdxl_mel.diffusion.weighting import Prediction
from sdxl_mel.errors import FormatError
from sdxl_mel.seeding import numpy_generator, torch_generator
from sdxl_mel.stages.train.order import Stream, is_regularized, regularized_before
from sdxl_mel.stages.train.settings import Config


class Example(Protocol):
    """A clip of a cache."""

    @property
    def key(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def track(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def repeats(self) -> int: ...
    @property
    def offsets(self) -> Sequence[str]: ...
    @property
    def captions(self) -> Sequence[str]: ...


class Latents(Protocol):
    """The part of a cache that batches are made of."""

    @property
    def scaling_factor(self) -> float: ...
    @property
    def empty_text(self) -> str: ...
    def latents(self, key: str, offset: int = 0) -> tuple[torch.Tensor, torch.Tensor]: ...
    def text(self, text_key: str) -> tuple[torch.Tensor, torch.Tensor]: ...
    def caption(self, text_key: str) -> str: ...


@dataclass(frozen=True)
class Diffusion:
    """The base's noise schedule and what its UNet predicts."""

    alphas_cumprod: torch.Tensor
    prediction: Prediction

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise."""
        signal, sigma = self._levels(timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what the UNet should predict: the noise, or v = sqrt(abar) noise - sqrt(1 - abar) x_0."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self._levels(timesteps)
        return signal * noise - sigma * latents

    def _levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        abar = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return abar.sqrt().float(), (1 - abar).sqrt().float()


@dataclass(frozen=True)
class Batch:
    """Examples ready for the UNet; tensors have the batch first. `captions` are there to be encoded, or already are."""

    slots: tuple[int, ...]
    sources: tuple[str, ...]
    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    captions: tuple[str, ...]
    hidden: torch.Tensor | None
    pooled: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.slots)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """Return the batch on a device, with what the UNet computes with in `dtype`."""
        pinned = device.type == "cuda"

        def move(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
            return (tensor.pin_memory() if pinned else tensor).to(device, kind, non_blocking=pinned)

        return replace(
            self,
            noisy=move(self.noisy, dtype),
            target=move(self.target, torch.float32),
            timesteps=move(self.timesteps, torch.int64),
            weights=move(self.weights, torch.float32),
            hidden=None if self.hidden is None else move(self.hidden, dtype),
            pooled=None if self.pooled is None else move(self.pooled, dtype),
        )


class Material:
    """The examples of a run and everything that is drawn for them."""

    def __init__(self, cache: Latents, splits: Mapping[str, Sequence[Example]], config: Config, diffusion: Diffusion) -> None:
        self.cache, self.config, self.diffusion = cache, config, diffusion
        self.train, self.regularization = splits["train"], splits.get("regularization", ())
        self.streams = {
            name: Stream(name, [example.repeats for example in examples], config.seed)
            for name, examples in (("train", self.train), ("regularization", self.regularization))
        }
        self.encodes_captions = bool(config.adapter.text_encoders)

    def example(self, slot: int) -> tuple[Example, float]:
        """Return the example of a slot and the weight of its loss."""
        share = self.config.regularization.share
        before = regularized_before(slot, share)
        if is_regularized(slot, share):
            example = self.regularization[self.streams["regularization"][before]]
            return example, example.weight * self.config.regularization.weight
        example = self.train[self.streams["train"][slot - before]]
        return example, example.weight

    def batch(self, step: int, places: range) -> Batch:
        """Return the part of a step's batch at `places`."""
        config = self.config
        slots = tuple(step * config.batch + place for place in places)
        chosen = [self.example(slot) for slot in slots]
        settings = config.timesteps
        variates = uniform_variates(config.seed, step, places, config.batch, settings.stratified)
        timesteps = timesteps_from(
            variates,
            settings.low,
            settings.high,
            distribution=settings.distribution,
            mean=settings.mean,
            std=settings.std,
        )
        drawn = [self._latent_and_noise(slot, example) for slot, (example, _) in zip(slots, chosen)]
        latents, noise, input_noise = (torch.stack(each) for each in zip(*drawn))
        texts = [self._caption(slot, example) for slot, (example, _) in zip(slots, chosen)]
        return Batch(
            slots=slots,
            sources=tuple(example.source for example, _ in chosen),
            noisy=self.diffusion.noisy(latents, input_noise, timesteps),
            target=self.diffusion.target(latents, noise, timesteps),
            timesteps=timesteps,
            weights=torch.tensor([weight for _, weight in chosen]),
            **self.text_of(texts),
        )

    def text_of(self, keys: Sequence[str]) -> dict[str, object]:
        """Return the text fields of a batch for these text keys."""
        if self.encodes_captions:
            return {"captions": tuple(map(self.cache.caption, keys)), "hidden": None, "pooled": None}
        hidden, pooled = (torch.stack(each) for each in zip(*map(self.cache.text, keys)))
        return {"captions": (), "hidden": hidden, "pooled": pooled}

    def latent(self, example: Example, offset: int, generator: torch.Generator) -> torch.Tensor:
        """Return a sample of an example's posterior, scaled. Raises FormatError for a cache with NaN in it."""
        mean, logvar = self.cache.latents(example.key, offset)
        latent = (mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)) * self.cache.scaling_factor
        if not bool(latent.isfinite().all()):
            raise FormatError(f"{example.source}: its latents hold NaN or infinity; run sdxl-mel cache verify")
        return latent

    def _latent_and_noise(self, slot: int, example: Example) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        config, generator = self.config, torch_generator(self.config.seed, "example", slot)
        offset = int(torch.randint(len(example.offsets), (), generator=generator))
        latent = self.latent(example, offset, generator)
        noise = sample_noise(
            latent,
            generator,
            offset=config.noise.offset,
            random_offset=config.noise.random_offset,
            adaptive_offset=config.noise.adaptive_offset,
            multires_iterations=config.noise.multires_iterations,
            multires_discount=config.noise.multires_discount,
        )
        return latent, noise, perturbed(noise, generator, config.noise.perturbation)

    def _caption(self, slot: int, example: Example) -> str:
        generator = numpy_generator(self.config.seed, "caption", slot)
        if generator.random() < self.config.caption_dropout:
            return self.cache.empty_text
        return example.captions[int(generator.integers(len(example.captions)))]

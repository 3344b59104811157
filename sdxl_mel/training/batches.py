"""What a step is trained on, drawn slot by slot: the same numbers whatever device or micro-batch computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.noise import perturbed, sample_noise, timesteps_from, uniform_variates
from sdxl_mel.diffusion.options import Prediction
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.cache import Cache, CachedExample
from sdxl_mel.models.base import Base
from sdxl_mel.models.vae import scale_latents
from sdxl_mel.seeding import numpy_generator, torch_generator
from sdxl_mel.training.lora_settings import DataSettings

EPOCHS_KEPT = 4
TIMESTEPS = 1000
Text = TextEmbeddings | list[str]
"""What a batch says: its embeddings, or the captions to encode where the text encoders are trained."""
LEAST_ALPHA = 1e-6
"""Less is zero; schedulers that divide by it keep 2^-24 instead."""
DECILES = 10
"""The timesteps are logged and validated in tenths, lowest noise first."""


def regularized_before(slot: int, share: float) -> int:
    """Return how many of the first `slot` slots are regularisation: exactly floor(slot * share)."""
    return int(slot * Fraction(str(share)))


def is_regularized(slot: int, share: float) -> bool:
    """Return whether a slot trains an example of the split `regularization`."""
    return regularized_before(slot + 1, share) > regularized_before(slot, share)


class Stream:
    """An endless sequence of examples: each epoch holds every example `repeats` times in a new order."""

    def __init__(self, name: str, repeats: Sequence[int], seed: int) -> None:
        self.name, self.seed = name, seed
        self.epoch = np.repeat(np.arange(len(repeats)), repeats)
        self._shuffled = lru_cache(EPOCHS_KEPT)(self._shuffle)

    def __getitem__(self, place: int) -> int:
        """Return the index of the example at a place of the sequence."""
        epoch, within = divmod(place, len(self.epoch))
        return int(self._shuffled(epoch)[within])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return numpy_generator(self.seed, "order", self.name, epoch).permutation(self.epoch)


@dataclass(frozen=True)
class Diffusion:
    """The base's noise schedule and what its UNet predicts."""

    alphas_cumprod: torch.Tensor
    prediction: Prediction

    @property
    def ends_in_noise(self) -> bool:
        """Say whether nothing of the image is left at the last timestep: zero terminal SNR (arXiv 2305.08891)."""
        return float(self.alphas_cumprod[-1]) < LEAST_ALPHA

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


def diffusion_of(base: Base) -> Diffusion:
    """Return the base's noise schedule. Raises InputError for one that cannot be trained as it stands."""
    alphas, prediction = base.scheduler.alphas_cumprod.double(), base.scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"{base.name}: predicts {prediction!r}; epsilon and v_prediction can be trained")
    diffusion = Diffusion(alphas, prediction)
    if prediction == "epsilon" and diffusion.ends_in_noise:
        raise InputError(
            f"{base.name}: zero terminal SNR with epsilon prediction has no image to learn from at the last step"
        )
    return diffusion


@dataclass(frozen=True)
class Batch:
    """Examples ready for the UNet; tensors have the batch first."""

    slots: tuple[int, ...]
    sources: tuple[str, ...]
    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    text: Text

    def __len__(self) -> int:
        return len(self.slots)

    def at(self, places: Sequence[int]) -> "Batch":
        """Return the examples at some places of the batch, counted from 0."""
        index = list(places)
        return Batch(
            slots=tuple(self.slots[place] for place in index),
            sources=tuple(self.sources[place] for place in index),
            noisy=self.noisy[index],
            target=self.target[index],
            timesteps=self.timesteps[index],
            weights=self.weights[index],
            text=[self.text[place] for place in index]
            if isinstance(self.text, list)
            else TextEmbeddings(*(each[index] for each in self.text)),
        )

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
            text=self.text
            if isinstance(self.text, list)
            else TextEmbeddings(*(move(each, dtype) for each in self.text)),
        )


class TrainingData:
    """The examples of a run and everything that is drawn for them."""

    def __init__(
        self,
        cache: Cache,
        splits: Mapping[str, Sequence[CachedExample]],
        diffusion: Diffusion,
        settings: DataSettings,
        *,
        encodes_captions: bool = False,
    ) -> None:
        self.cache, self.diffusion, self.settings, self.encodes_captions = cache, diffusion, settings, encodes_captions
        self.train, self.regularization = splits["train"], splits.get("regularization", ())
        self.streams = {
            name: Stream(name, [example.repeats for example in examples], settings.seed)
            for name, examples in (("train", self.train), ("regularization", self.regularization))
        }

    def example(self, slot: int) -> tuple[CachedExample, float]:
        """Return the example of a slot and the weight of its loss."""
        share = self.settings.regularization.share
        before = regularized_before(slot, share)
        if is_regularized(slot, share):
            example = self.regularization[self.streams["regularization"][before]]
            return example, example.weight * self.settings.regularization.weight
        example = self.train[self.streams["train"][slot - before]]
        return example, example.weight

    def batch(self, step: int, places: range) -> Batch:
        """Return the part of a step's batch at `places`."""
        settings, timestep = self.settings, self.settings.timesteps
        slots = tuple(step * settings.batch + place for place in places)
        chosen = [self.example(slot) for slot in slots]
        timesteps = timesteps_from(
            uniform_variates(settings.seed, step, places, settings.batch, timestep.stratified),
            **timestep.model_dump(exclude={"stratified"}),
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
            text=self.text_of(texts),
        )

    def fixed_batch(self, tenths: Sequence[tuple[CachedExample, int]]) -> Batch:
        """Return clips at a timestep of a tenth each, a function of the clips and the seed alone.

        Latents are posterior means, the caption of a clip is its first.
        """
        drawn = [self._fixed(clip, tenth) for clip, tenth in tenths]
        latents, noise = (torch.stack(each) for each in list(zip(*drawn))[:2])
        timesteps = torch.tensor([timestep for _, _, timestep in drawn])
        return Batch(
            slots=tuple(range(len(tenths))),
            sources=tuple(clip.source for clip, _ in tenths),
            noisy=self.diffusion.noisy(latents, noise, timesteps),
            target=self.diffusion.target(latents, noise, timesteps),
            timesteps=timesteps,
            weights=torch.ones(len(tenths)),
            text=self.text_of([clip.captions[0] for clip, _ in tenths]),
        )

    def text_of(self, keys: Sequence[str]) -> Text:
        """Return what a batch says, given its text keys."""
        if self.encodes_captions:
            return list(map(self.cache.caption, keys))
        return TextEmbeddings(*(torch.stack(each) for each in zip(*map(self.cache.text, keys))))

    def latent(self, example: CachedExample, offset: int, generator: torch.Generator) -> torch.Tensor:
        """Return a sample of an example's posterior, scaled. Raises FormatError for a cache with NaN in it."""
        mean, logvar = self.cache.latents(example.key, offset)
        spread = torch.randn(mean.shape, generator=generator) * (0.5 * logvar).exp()
        drawn = mean + spread if self.settings.posterior == "sample" else mean
        latent = scale_latents(drawn, self.cache.header.scaling_factor)
        if not bool(latent.isfinite().all()):
            raise FormatError(f"{example.source}: its latents hold NaN or infinity; run sdxl-mel cache verify")
        return latent

    def _fixed(self, clip: CachedExample, tenth: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        generator = torch_generator(self.settings.seed, "validation", clip.key, tenth)
        latent = scale_latents(self.cache.latents(clip.key)[0], self.cache.header.scaling_factor)
        width = TIMESTEPS // DECILES
        timestep = tenth * width + int(torch.randint(width, (), generator=generator))
        return latent, torch.randn(latent.shape, generator=generator), timestep

    def _latent_and_noise(self, slot: int, example: CachedExample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        settings, generator = self.settings.noise, torch_generator(self.settings.seed, "example", slot)
        offset = int(torch.randint(len(example.offsets), (), generator=generator))
        latent = self.latent(example, offset, generator)
        noise = sample_noise(latent, generator, **settings.model_dump(exclude={"perturbation"}))
        return latent, noise, perturbed(noise, generator, settings.perturbation)

    def _caption(self, slot: int, example: CachedExample) -> str:
        generator = numpy_generator(self.settings.seed, "caption", slot)
        dropout, regularization = self.settings.caption_dropout, self.settings.regularization
        if regularization.caption_dropout is not None and is_regularized(slot, regularization.share):
            dropout = regularization.caption_dropout
        if generator.random() < dropout:
            return self.cache.header.empty_text
        wordings = example.captions[: self.settings.caption_variants]
        return wordings[int(generator.integers(len(wordings)))]

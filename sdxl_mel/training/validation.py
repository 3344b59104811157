"""Loss on held-out tracks: the same clips, timesteps and noise every time, so that only the model moves."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator

from sdxl_mel.diffusion.losses import squared_error
from sdxl_mel.files.cache import CachedExample
from sdxl_mel.models.vae import scale_latents
from sdxl_mel.seeding import numpy_generator, torch_generator
from sdxl_mel.training.batches import Batch, TrainingData, share_of
from sdxl_mel.training.model import Model
from sdxl_mel.training.step import DECILES

TIMESTEPS = 1000

Probe = Mapping[str, Sequence[CachedExample]]
"""The clips that are judged, by what they are: "held out", "trained"."""

Losses = dict[str, list[float]]
"""Mean squared error of each tenth of the timesteps, by kind of clip."""


def choose_clips(
    splits: Mapping[str, Sequence[CachedExample]], clips: int, seed: int
) -> dict[str, list[CachedExample]]:
    """Return up to `clips` clips of each kind: held out (split validation), trained, regularisation if there is any."""
    kinds = {"held out": "validation", "trained": "train", "regularization": "regularization"}
    chosen = {}
    for kind, split in kinds.items():
        examples = splits.get(split, ())
        order = numpy_generator(seed, "validation clips", kind).permutation(len(examples))[:clips]
        if len(order):
            chosen[kind] = [examples[index] for index in sorted(order)]
    return chosen


@torch.no_grad()
def validate(
    model: Model, training_data: TrainingData, probe: Probe, batch: int, accelerator: Accelerator | None = None
) -> Losses:
    """Return the squared error of every kind of clip by tenth of the timesteps, lowest noise first."""
    model.adapters.clear_masks()
    return {kind: _by_decile(model, training_data, clips, batch, accelerator) for kind, clips in probe.items()}


def mean_loss(by_decile: Sequence[float]) -> float:
    """Return the mean over all timesteps."""
    return sum(by_decile) / len(by_decile)


def _by_decile(
    model: Model,
    training_data: TrainingData,
    clips: Sequence[CachedExample],
    batch: int,
    accelerator: Accelerator | None,
) -> list[float]:
    pairs = [(clip, decile) for clip in clips for decile in range(DECILES)]
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    own = share_of(len(pairs), process, processes)
    sums = torch.zeros(DECILES, device=model.device)
    for start in range(own.start, own.stop, batch):
        piece = pairs[start : min(start + batch, own.stop)]
        each = model.moved(_fixed_batch(training_data, piece))
        errors = squared_error(model.predict(each), each.target)
        sums.index_add_(0, torch.tensor([decile for _, decile in piece], device=model.device), errors)
    if accelerator and processes > 1:
        sums = accelerator.reduce(sums, reduction="sum")
    return [float(value) / len(clips) for value in sums]


def _fixed_batch(training_data: TrainingData, pairs: Sequence[tuple[CachedExample, int]]) -> Batch:
    """Return a batch that depends on the clips and the seed alone; latents are posterior means, captions the first."""
    drawn = [_fixed(training_data, clip, decile) for clip, decile in pairs]
    latents, noise = (torch.stack(each) for each in list(zip(*drawn))[:2])
    timesteps = torch.tensor([timestep for _, _, timestep in drawn])
    return Batch(
        slots=tuple(range(len(pairs))),
        sources=tuple(clip.source for clip, _ in pairs),
        noisy=training_data.diffusion.noisy(latents, noise, timesteps),
        target=training_data.diffusion.target(latents, noise, timesteps),
        timesteps=timesteps,
        weights=torch.ones(len(pairs)),
        text=training_data.text_of([clip.captions[0] for clip, _ in pairs]),
    )


def _fixed(training_data: TrainingData, clip: CachedExample, decile: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    generator = torch_generator(training_data.config.seed, "validation", clip.key, decile)
    latent = scale_latents(training_data.cache.latents(clip.key)[0], training_data.cache.scaling_factor)
    width = TIMESTEPS // DECILES
    timestep = decile * width + int(torch.randint(width, (), generator=generator))
    return latent, torch.randn(latent.shape, generator=generator), timestep

"""Jobs to pictures: text, noise, sampling and decoding, for single tiles and for long pieces."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.circular import circular_in_time
from sdxl_mel.diffusion.conditioning import TextEmbeddings, stacked
from sdxl_mel.diffusion.long_form import PromptTrack, section_weights, travel_weights
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.diffusion.sampling import (
    Denoiser,
    Guidance,
    Known,
    Predict,
    draw_noise,
    make_scheduler,
    sample,
    set_steps,
)
from sdxl_mel.errors import ResourceError
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import TEXT_ENCODERS, Part
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.models.vae import decode_latents
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import calmest_turn
from sdxl_mel.synthesis.jobs import Job
from sdxl_mel.synthesis.layout import Layout
from sdxl_mel.synthesis.long_pieces import Piece, decode_canvas, join_tiles


@dataclass(frozen=True)
class Models:
    """A base whose parts work on `device`; those that are `resting` go back to the CPU after their work."""

    base: Base
    device: str
    resting: Collection[str] = ()

    @contextmanager
    def working(self, part: Part) -> Iterator[Any]:
        """Yield one part where it works."""
        model = self.base.models[part]
        try:
            yield model.to(self.device)
        finally:
            if part in self.resting:
                model.to("cpu")


@torch.inference_mode()
def encode_texts(models: Models, texts: Sequence[str], clip_skip: int) -> dict[str, TextEmbeddings]:
    """Return the embeddings of every text for the UNet, each encoded alone, so that none depends on the others."""
    encoders = [part for part in TEXT_ENCODERS if part in models.base.models]
    for part in encoders:
        models.base.models[part].to(models.device)
    dtype = models.base.unet.dtype
    encoded = {
        text: TextEmbeddings(*(each.to(dtype) for each in encode_prompts(models.base, [text], clip_skip)))
        for text in texts
    }
    for part in encoders:
        if part in models.resting:
            models.base.models[part].to("cpu")
    return encoded


@dataclass(frozen=True)
class Drawer:
    """Draws the pictures of one call: `known` latents are kept or varied, of which `walked` of the steps are done.

    `before_step` is called before every step and may raise to stop, `on_step` after it, with the latents.
    """

    models: Models
    spec: MelSpec
    sampling: Sampling
    layout: Layout
    texts: Mapping[str, TextEmbeddings]
    batch: int
    known: Known | None = None
    walked: float = 1.0
    before_step: Callable[[], None] = lambda: None
    on_step: Callable[[Tensor], None] = lambda latents: None

    def steps_for(self, draws: int) -> int:
        """Return how many steps `draws` pictures take."""
        sampling = self.sampling
        walk = len(set_steps(self._scheduler(), sampling.steps, "cpu", self.walked, sampling.timesteps))
        if not self.layout.long:
            return walk * -(-draws // self.batch)
        return walk * draws * (1 if self.layout.mode == "joint" else len(self.layout.starts))

    def draw(self, jobs: Sequence[Job], seeds: Sequence[int]) -> list[Levels]:
        """Return one picture a job, drawn with its seed; single tiles are drawn together."""
        try:
            if self.layout.long:
                pictures = [self._piece(job, seed) for job, seed in zip(jobs, seeds)]
            else:
                pictures = self._tiles(jobs, seeds)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{self.models.device} is out of memory; finished results are kept: try --batch 1, --dtype fp16, "
                "--offload or --slicing"
            ) from error
        return [turned(levels) for levels in pictures] if self.layout.loop else pictures

    def _tiles(self, jobs: Sequence[Job], seeds: Sequence[int]) -> list[Levels]:
        text = stacked([self._text_of(job) for job in jobs])
        noise = self._noise(seeds, self.layout.columns)
        with self.models.working("unet") as unet, self._closed(unet):
            denoiser = self._denoiser(unet, [job.negative for job in jobs])
            latents = self._sample(noise, lambda x, t, _: denoiser.predict(x, t, text), seeds)
        with self.models.working("vae") as vae, self._closed(vae):
            # One at a time: a picture then never depends on its neighbours, nor memory on the batch.
            return [decode_latents(vae, each[None], self.spec)[0][:, : self.layout.frames] for each in latents]

    def _piece(self, job: Job, seed: int) -> Levels:
        spec, layout = self.spec, self.layout
        with self.models.working("unet") as unet:
            denoiser = self._denoiser(unet, [job.negative])
            piece = Piece(layout, denoiser, self._track(job), seed, self._noise, self._sample)
            if layout.mode == "independent":
                tiles = [piece.view(view, piece.columns(view)) for view in range(len(layout.starts))]
            elif layout.mode == "extend":
                canvas = piece.extended()
            else:
                canvas = piece.joint(self.batch)
        with self.models.working("vae") as vae:
            if layout.mode == "independent":
                return join_tiles((decode_latents(vae, tile, spec)[0] for tile in tiles), layout, spec)
            return decode_canvas(vae, canvas, layout, spec)

    def _closed(self, model: Any) -> Any:
        """Return a context in which a loop's time is a circle for the model."""
        return circular_in_time(model) if self.layout.loop else nullcontext()

    def _track(self, job: Job) -> PromptTrack:
        texts = stacked([self.texts[each.text] for each in job.texts])
        columns = self.layout.columns
        if job.travel:
            return PromptTrack(texts, travel_weights(columns))
        columns_per_second = self.spec.sample_rate / self.spec.hop_length / LATENT_FACTOR
        starts = [round(each.seconds * columns_per_second) for each in job.texts]
        return PromptTrack(texts, section_weights(starts, columns))

    def _text_of(self, job: Job) -> TextEmbeddings:
        """Return the text of a single tile: the share it takes of its first and second prompt."""
        texts = [self.texts[each.text] for each in job.texts]
        if len(texts) == 1:
            return texts[0]
        return TextEmbeddings(*(torch.lerp(first, second, job.share) for first, second in zip(*texts[:2])))

    def _denoiser(self, unet: Any, negatives: list[str]) -> Denoiser:
        unconditional = stacked([self.texts[negative] for negative in negatives])
        time_ids = self.models.base.family.time_ids(self.spec.n_mels, self.spec.width)
        return Denoiser(unet, time_ids, unconditional, self._guidance)

    @property
    def _guidance(self) -> Guidance:
        count = self.models.base.scheduler.config.num_train_timesteps
        start, end = (level * count for level in self.sampling.guidance_interval)
        return Guidance(self.sampling.guidance, self.sampling.rescale, start, end)

    def _noise(self, seeds: Sequence[int], columns: int) -> Tensor:
        return draw_noise(seeds, (4, self.spec.n_mels // LATENT_FACTOR, columns), self.models.device)

    def _sample(self, noise: Tensor, predict: Predict, seeds: Sequence[int], known: Known | None = None) -> Tensor:
        def stoppable(latents: Tensor, timestep: Tensor, step: int) -> Tensor:
            self.before_step()
            return predict(latents, timestep, step)

        given = known or self.known
        return sample(
            self._scheduler(),
            self.sampling.steps,
            noise,
            stoppable,
            seeds=seeds,
            known=None if given is None else Known(given.latents.to(noise), given.mask.to(noise)),
            strength=self.walked if known is None else 1.0,
            timesteps=self.sampling.timesteps,
            on_step=self.on_step,
        )

    def _scheduler(self) -> Any:
        return make_scheduler(self.sampling.sampler, self.models.base.scheduler, self.sampling.timesteps)


def turned(levels: Levels) -> Levels:
    """Return a loop turned by a latent column or less, so that no note begins right where its file does.

    On a circle that place is like any other; but there alone a player may leave a gap.
    """
    return np.roll(levels, -calmest_turn(dequantise(levels), LATENT_FACTOR), axis=1)

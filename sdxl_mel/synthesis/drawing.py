"""Jobs to pictures: text, noise, sampling and decoding, for single tiles and for long pieces."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.circular import circular_in_time
from sdxl_mel.diffusion.conditioning import TextEmbeddings
from sdxl_mel.diffusion.long_form import PromptTrack, section_weights, travel_weights
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
from sdxl_mel.models.text_encoding import encode_prompts
from sdxl_mel.models.vae import decode_latents
from sdxl_mel.sound.melspec import LATENT_FACTOR
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import calmest_turn
from sdxl_mel.synthesis.jobs import Job
from sdxl_mel.synthesis.layout import Layout
from sdxl_mel.synthesis.long_pieces import Piece, decode_canvas, join_tiles
from sdxl_mel.synthesis.pipeline import Models
from sdxl_mel.synthesis.settings import Config


@dataclass
class Drawer:
    """Everything that stays the same from result to result; `on_step` is told of every step."""

    config: Config
    models: Models
    layout: Layout
    known: Known | None = None
    on_step: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.texts: dict[str, TextEmbeddings] = {}

    def read_texts(self, jobs: Sequence[Job]) -> None:
        """Encode every text of the jobs; the text encoders have done their work after this."""
        base = self.models.base
        wanted = {part.text: None for job in jobs for part in job.parts} | {job.negative: None for job in jobs}
        for encoder in base.text_encoders:
            self.models.on_device(encoder)
        with torch.inference_mode():
            for text in wanted:
                self.texts[text] = encode_prompts(base, [text], self.models.clip_skip)
        for encoder in base.text_encoders:
            self.models.rest(encoder)

    def steps_for(self, draws: int) -> int:
        """Return how many steps `draws` pictures take, for the progress bar."""
        walked = len(set_steps(self._scheduler(), self.config.steps, "cpu", self._strength))
        if not self.layout.long:
            return walked * -(-draws // self.config.batch)
        return walked * draws * (1 if self.config.mode == "joint" else len(self.layout.starts))

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
        text = _stacked([self._text_of(job) for job in jobs])
        with self._unet() as unet, circular_in_time(unet) if self.layout.loop else nullcontext():
            denoiser = self._denoiser(unet, [job.negative for job in jobs])
            latents = self._sample(
                self._noise(seeds, self.layout.columns), lambda x, t, _: denoiser.predict(x, t, text), seeds
            )
        with self._vae() as vae, circular_in_time(vae) if self.layout.loop else nullcontext():
            # One at a time: a picture then never depends on its neighbours, nor memory on the batch.
            return [decode_latents(vae, each[None], self.models.spec)[0][:, : self.layout.frames] for each in latents]

    def _piece(self, job: Job, seed: int) -> Levels:
        spec, layout = self.models.spec, self.layout
        with self._unet() as unet:
            denoiser = self._denoiser(unet, [job.negative])
            piece = Piece(layout, denoiser, self._track(job), seed, self._noise, self._sample)
            if self.config.mode == "independent":
                tiles = [piece.view(view, piece.columns(view)) for view in range(len(layout.starts))]
            elif self.config.mode == "extend":
                canvas = piece.extended()
            else:
                canvas = piece.joint(self.config.merge, self.config.batch)
        with self._vae() as vae:
            if self.config.mode == "independent":
                return join_tiles((decode_latents(vae, tile, spec)[0] for tile in tiles), layout, spec)
            return decode_canvas(vae, canvas, layout, spec)

    def _track(self, job: Job) -> PromptTrack:
        texts = _stacked([self.texts[part.text] for part in job.parts])
        columns = self.layout.columns
        if job.travel:
            return PromptTrack(texts, travel_weights(columns))
        spec = self.models.spec
        columns_per_second = spec.sample_rate / spec.hop_length / LATENT_FACTOR
        starts = [round(part.seconds * columns_per_second) for part in job.parts]
        return PromptTrack(texts, section_weights(starts, columns))

    def _text_of(self, job: Job) -> TextEmbeddings:
        """Return the text of a single tile: the share it takes of its first and second prompt."""
        texts = [self.texts[part.text] for part in job.parts]
        if len(texts) == 1:
            return texts[0]
        return TextEmbeddings(*(torch.lerp(first, second, job.share) for first, second in zip(*texts[:2])))

    def _denoiser(self, unet: Any, negatives: list[str]) -> Denoiser:
        spec = self.models.spec
        time_ids = self.models.base.family.time_ids(spec.n_mels, spec.width)
        unconditional = _stacked([self.texts[negative] for negative in negatives])
        return Denoiser(unet, time_ids, unconditional, self._guidance)

    @property
    def _guidance(self) -> Guidance:
        count = self.models.base.scheduler.config.num_train_timesteps
        start, end = (level * count for level in self.config.guidance_interval)
        return Guidance(self.models.guidance, self.config.rescale, start, end)

    def _noise(self, seeds: Sequence[int], columns: int) -> Tensor:
        return draw_noise(seeds, (4, self.models.spec.n_mels // LATENT_FACTOR, columns), self.models.device)

    def _sample(self, noise: Tensor, predict: Predict, seeds: Sequence[int], known: Known | None = None) -> Tensor:
        given = known or self.known
        return sample(
            self._scheduler(),
            self.config.steps,
            noise,
            predict,
            seeds=seeds,
            known=None if given is None else Known(given.latents.to(noise), given.mask.to(noise)),
            strength=self._strength if known is None else 1.0,
            on_step=self.on_step,
        )

    @property
    def _strength(self) -> float:
        """Return how much of the walk is done: all of it unless a sound is varied."""
        return self.config.strength if self.known is not None and self.config.inpaint is None else 1.0

    def _scheduler(self) -> Any:
        return make_scheduler(self.config.sampler, self.models.base.scheduler)

    @contextmanager
    def _unet(self) -> Iterator[Any]:
        yield self.models.on_device(self.models.base.unet)
        self.models.rest(self.models.base.unet)

    @contextmanager
    def _vae(self) -> Iterator[Any]:
        yield self.models.on_device(self.models.base.vae)
        self.models.rest(self.models.base.vae)


def turned(levels: Levels) -> Levels:
    """Return a loop turned by a latent column or less, so that no note begins right where its file does.

    On a circle that place is like any other; but there alone a player may leave a gap.
    """
    return np.roll(levels, -calmest_turn(dequantise(levels), LATENT_FACTOR), axis=1)


def _stacked(texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
    return TextEmbeddings(*(torch.cat(parts) for parts in zip(*texts)))

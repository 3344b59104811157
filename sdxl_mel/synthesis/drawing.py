"""Jobs to pictures: text, noise, sampling and decoding, for single tiles and for long pieces."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.circular import circular_in_time
from sdxl_mel.diffusion.conditioning import TextEmbeddings, stacked
from sdxl_mel.diffusion.long_form import (
    JointPredictor,
    PromptTrack,
    columns_of,
    extend,
    section_weights,
    travel_weights,
)
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
from sdxl_mel.execution import stop_if_asked
from sdxl_mel.models.base import Base
from sdxl_mel.models.family import TEXT_ENCODERS, Part
from sdxl_mel.models.vae import decode_latents, decode_windows
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.blend import Block, blended, close_loop, paste
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.sound.seams import calmest_turn
from sdxl_mel.synthesis.jobs import Job
from sdxl_mel.synthesis.layout import Layout
from sdxl_mel.synthesis.prompting import encode_text, equally_long
from sdxl_mel.synthesis.refining import Refining

OnFrames = Callable[[Levels, int], None]
Refine = Callable[[Levels, int], Levels]
"""(levels, their first latent column) -> the levels with what the VAE smoothed."""
WINDOW_OVERLAP = 4
"""A VAE window shares a quarter of its width with the next: enough that the border of neither is seen."""


@dataclass(frozen=True)
class Models:
    """A base whose parts work on `device`; those that are `resting` go back to the CPU after their work."""

    base: Base
    device: str
    resting: Collection[str] = ()

    @contextmanager
    def working(self, part: Part) -> Iterator[Any]:
        """Yield one part where it works."""
        stop_if_asked()
        model = self.base.models[part]
        try:
            yield model.to(self.device)
        finally:
            if part in self.resting:
                model.to("cpu")


@contextmanager
def memory_explained(device: str) -> Iterator[None]:
    """Raise ResourceError that says what to lower where the device has too little memory for the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{device} is out of memory; finished results are kept: try --batch 1, --dtype fp16, --offload or --slicing"
        ) from error


@torch.inference_mode()
def encode_texts(
    models: Models, texts: Sequence[str], clip_skip: int, *, weighted: bool = True
) -> dict[str, TextEmbeddings]:
    """Return the embeddings of every text for the UNet, each encoded alone; see `prompting.encode_text`."""
    dtype = models.base.unet.dtype
    with ExitStack() as stack:
        for part in TEXT_ENCODERS:
            if part in models.base.models:
                stack.enter_context(models.working(part))
        return {
            text: TextEmbeddings(
                *(each.to(dtype) for each in encode_text(models.base, text, clip_skip, weighted=weighted))
            )
            for text in texts
        }


@dataclass(frozen=True)
class Drawer:
    """Draws the pictures of one call; `known` latents are kept or varied, and what is decoded is refined if asked.

    `before_step` is called before every step with its noise level, 0 = clean to 1 = noise, and may raise to stop;
    `on_step` after it, with the latents; `on_frames` as `decode_canvas` calls it.
    """

    models: Models
    spec: MelSpec
    sampling: Sampling
    layout: Layout
    texts: Mapping[str, TextEmbeddings]
    batch: int
    known: Known | None = None
    refining: Refining | None = None
    before_step: Callable[[float], None] = lambda level: None
    on_step: Callable[[Tensor], None] = lambda latents: None
    on_frames: OnFrames = lambda levels, frames: None

    def steps_for(self, draws: int) -> int:
        """Return how many steps `draws` pictures take."""
        sampling = self.sampling
        strength = 1.0 if self.known is None else float(self.known.strength.max())
        walk = len(set_steps(self._scheduler(), sampling.steps, "cpu", strength, sampling.timesteps))
        if not self.layout.long:
            return walk * -(-draws // self.batch)
        return walk * draws * (1 if self.layout.mode == "joint" else len(self.layout.starts))

    def draw(self, jobs: Sequence[Job], seeds: Sequence[int]) -> list[Levels]:
        """Return one picture a job, drawn with its seed; single tiles are drawn together."""
        drawer = self._for(jobs)
        with memory_explained(self.models.device):
            if self.layout.long:
                pictures = [drawer._piece(job, seed) for job, seed in zip(jobs, seeds)]
            else:
                pictures = drawer._tiles(jobs, seeds)
        return [turned(levels) for levels in pictures] if self.layout.loop else pictures

    def latents(self, jobs: Sequence[Job], seeds: Sequence[int]) -> Tensor:
        """Return scaled latents (jobs, 4, height, columns): single tiles drawn together, or one long piece jointly."""
        return self._for(jobs)._latents(jobs, seeds)

    def _for(self, jobs: Sequence[Job]) -> "Drawer":
        """Return this with the texts of some jobs, all equally long."""
        names = list(dict.fromkeys(name for job in jobs for name in job.said))
        texts = [self.texts[name] for name in names]
        if len({text.prompt_embeds.shape[1] for text in texts}) > 1:
            texts = equally_long(texts, self.texts[""])
        return replace(self, texts=dict(zip(names, texts)))

    def _latents(self, jobs: Sequence[Job], seeds: Sequence[int]) -> Tensor:
        noise, job = self._noise(seeds, self.layout.columns), jobs[0]
        with self.models.working("unet") as unet, self._closed(unet):
            denoiser = self._denoiser(unet, [job.negative for job in jobs])
            if self.layout.long:
                starts, width = self.layout.starts, self.layout.width
                predict: Predict = JointPredictor(
                    denoiser,
                    self._track(job),
                    width,
                    starts,
                    self.layout.merge,
                    views_at_once=self.batch,
                    seed=seeds[0],
                )
            else:
                text = stacked([self._text_of(job) for job in jobs])
                predict = lambda x, t, _: denoiser.predict(x, t, text)  # noqa: E731
            return self._sample(noise, predict, seeds)

    def _tiles(self, jobs: Sequence[Job], seeds: Sequence[int]) -> list[Levels]:
        latents = self._latents(jobs, seeds)
        with self.models.working("vae") as vae, self._closed(vae):
            # One at a time: a picture then never depends on its neighbours, nor memory on the batch.
            pictures = [decode_latents(vae, each[None], self.spec)[0] for each in latents]
        refined = [self._refine(seed)(levels, 0) for levels, seed in zip(pictures, seeds)]
        return [levels[:, : self.layout.frames] for levels in refined]

    def _piece(self, job: Job, seed: int) -> Levels:
        spec, layout, track = self.spec, self.layout, self._track(job)

        def draw_view(view: int, columns: Tensor, known: Known | None = None) -> Tensor:
            """Return the latents (1, 4, height, columns) of one view from its own noise."""
            with self.models.working("unet") as unet:
                denoiser, text = self._denoiser(unet, [job.negative]), track.over(columns)
                seeds = [derive_seed(seed, "view", view)]
                noise = self._noise(seeds, len(columns))
                return self._sample(noise, lambda x, t, _: denoiser.predict(x, t, text), seeds, known)

        match layout.mode:
            case "joint":
                canvas, growth = self._latents([job], [seed]), None
            case "extend":
                growth = extend(draw_view, layout.columns, layout.starts, layout.width)
                canvas, _ = next(growth)
            case "independent":
                places = (columns_of(start, layout.width, layout.columns) for start in layout.starts)
                tiles = [draw_view(view, columns) for view, columns in enumerate(places)]
                with self.models.working("vae") as vae:
                    pictures = (decode_latents(vae, tile, spec)[0] for tile in tiles)
                    return join_tiles(map(self._refine(seed), pictures, layout.starts), layout, spec)
        with self.models.working("vae") as vae:
            return decode_canvas(
                vae, canvas, layout, spec, growth=growth, on_frames=self.on_frames, refine=self._refine(seed)
            )

    def _refine(self, seed: int) -> Refine:
        """Return what refines the pictures of one result."""
        if self.refining is None:
            return as_decoded
        circle = self.layout.columns if self.layout.loop else None
        return partial(self.refining.refined, spec=self.spec, seed=seed, circle=circle)

    def _closed(self, model: Any) -> Any:
        """Return a context in which a loop's time is a circle for the model; the views of a long one are none."""
        return circular_in_time(model) if self.layout.loop and not self.layout.long else nullcontext()

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
        base, sampling = self.models.base, self.sampling
        time_ids = base.family.time_ids(self.spec.n_mels, self.spec.width)
        start, end = (level * base.scheduler.config.num_train_timesteps for level in sampling.guidance_interval)
        return Denoiser(unet, time_ids, unconditional, Guidance(sampling.guidance, sampling.rescale, start, end))

    def _noise(self, seeds: Sequence[int], columns: int) -> Tensor:
        return draw_noise(seeds, (4, self.spec.n_mels // LATENT_FACTOR, columns), self.models.device)

    def _sample(self, noise: Tensor, predict: Predict, seeds: Sequence[int], known: Known | None = None) -> Tensor:
        def stoppable(latents: Tensor, timestep: Tensor, step: int) -> Tensor:
            self.before_step(float(timestep) / self.models.base.scheduler.config.num_train_timesteps)
            return predict(latents, timestep, step)

        given = known or self.known
        return sample(
            self._scheduler(),
            self.sampling.steps,
            noise,
            stoppable,
            seeds=seeds,
            known=None if given is None else Known(given.latents.to(noise), given.strength.to(noise)),
            timesteps=self.sampling.timesteps,
            on_step=self.on_step,
        )

    def _scheduler(self) -> Any:
        return make_scheduler(self.sampling.sampler, self.models.base.scheduler, self.sampling.timesteps)


def as_decoded(levels: Levels, first: int) -> Levels:
    """Return the levels as they are."""
    return levels


def turned(levels: Levels) -> Levels:
    """Return a loop turned by a latent column or less, so that no note begins right where its file does.

    On a circle that place is like any other; but there alone a player may leave a gap.
    """
    return np.roll(levels, -calmest_turn(dequantise(levels), LATENT_FACTOR), axis=1)


def decode_canvas(
    vae: Any,
    canvas: Tensor,
    layout: Layout,
    spec: MelSpec,
    *,
    growth: Iterator[tuple[Tensor, int]] | None = None,
    on_frames: OnFrames = lambda levels, frames: None,
    refine: Refine = as_decoded,
) -> Levels:
    """Return the picture of a canvas, window by window; a loop is decoded past its end and closed.

    `growth` draws more views on the canvas, as `extend` does, as far as the next window needs them. `on_frames` is
    called before each window but a loop's with the picture, and how many frames from its first are finished. `refine`
    is given each window before it is joined to the others.
    """
    overlap = layout.width // WINDOW_OVERLAP
    views, drawn = growth or iter(()), layout.width
    if layout.loop:
        for _ in views:
            pass
        canvas = torch.cat([canvas, canvas[..., :overlap]], dim=-1)
    picture = _blank(canvas.shape[-1] * LATENT_FACTOR, spec)

    def need(first: int, after: int) -> None:
        nonlocal drawn
        if not layout.loop:
            on_frames(picture[:, : layout.frames], min(first * LATENT_FACTOR, layout.frames))
        while drawn < after:
            _, drawn = next(views, (canvas, after))

    windows = decode_windows(vae, canvas, spec, overlap, need)
    refined = ((first, shared, refine(levels, first // LATENT_FACTOR)) for first, shared, levels in windows)
    return _assembled(picture, refined, layout, spec)


def decode_blocks(vae: Any, canvas: Tensor, layout: Layout, spec: MelSpec) -> Iterator[Block]:
    """Yield the picture of a canvas block by block, two windows in memory at a time; a loop's is yielded at once."""
    if layout.loop:
        yield 0, decode_canvas(vae, canvas, layout, spec)
    else:
        yield from blended(decode_windows(vae, canvas, spec, layout.width // WINDOW_OVERLAP), spec)


def join_tiles(tiles: Iterable[Levels], layout: Layout, spec: MelSpec) -> Levels:
    """Return tiles that know nothing of each other as one picture."""
    starts = [start * LATENT_FACTOR for start in layout.starts]
    overlaps = [0, *(frames for _, frames in layout.seams)]
    picture = _blank(starts[-1] + layout.width * LATENT_FACTOR, spec)
    return _assembled(picture, zip(starts, overlaps, tiles), layout, spec)


def _blank(frames: int, spec: MelSpec) -> Levels:
    return np.zeros((spec.n_mels, frames, 1 if spec.channels == "grey" else 3), np.uint8)


def _assembled(picture: Levels, windows: Iterable[tuple[int, int, Levels]], layout: Layout, spec: MelSpec) -> Levels:
    """Blend pictures that follow each other into `picture`, and return it closed, or cropped to its length."""
    for start, overlap, levels in windows:
        paste(picture, levels, start, overlap, spec)
    return close_loop(picture, picture.shape[1] - layout.frames, spec) if layout.loop else picture[:, : layout.frames]

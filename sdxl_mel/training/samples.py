"""Pictures and their sound while training: the same prompts and seeds every time, so that only the model moves."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdxl_mel.diffusion.conditioning import TextEmbeddings, encode_prompts
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, draw_noise, make_scheduler, sample
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.cache import Cache, CachedExample, latent_shape
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.metrics.codec_fidelity import pixel_rmse
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.header import guidance_of, read_model_header
from sdxl_mel.models.vae import decode_latents
from sdxl_mel.progress import log
from sdxl_mel.record import Record
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.training.model import TEXT_ENCODERS, Model
from sdxl_mel.training.settings import Config
from sdxl_mel.training.state import State

SAMPLER = "dpmpp_2m"


class Samples:
    """Draws a run's samples. The VAE waits on the CPU; frozen text encoders are opened once, read, and let go."""

    def __init__(self, config: Config, model: Model, cache: Cache, base: Base, clips: Sequence[CachedExample]) -> None:
        self.config, self.model, self.cache, self.scheduler = config, model, cache, base.scheduler
        count = config.samples.count
        if config.samples.prompts:
            anchored = [_anchored(prompt, cache.anchor) for prompt in config.samples.prompts]
            self.prompts = [anchored[index % len(anchored)] for index in range(count)]
        else:
            chosen = [clips[len(clips) * index // count] for index in range(count)]
            self.prompts = [cache.caption(clip.captions[0]) for clip in chosen]
        self.seeds = [derive_seed(config.seed, "sample", index) for index in range(count)]
        stated = config.samples.guidance
        self.guidance = guidance_of(read_model_header(base.source.path)) if stated is None else stated
        self.vae = open_base(config.base, ("vae",), vae=config.vae).vae
        self._text = None if model.encoders is not None else self._frozen_text()

    @torch.no_grad()
    def draw(self) -> list[NDArray[np.uint8]]:
        """Return the pictures, levels (n_mels, frames, 1 or 3) each."""
        model, settings = self.model, self.config.samples
        model.adapters.clear_masks()
        text, nothing = self._embeddings()
        denoiser = Denoiser(model.unet, model.time_ids, nothing, Guidance(self.guidance))  # type: ignore[arg-type]
        latents = sample(
            make_scheduler(SAMPLER, self.scheduler),
            settings.steps,
            draw_noise(self.seeds, latent_shape(self.cache.spec), model.device),
            lambda latents, timestep, step: denoiser.predict(latents, timestep, text),
            seeds=self.seeds,
        )
        self.vae.to(model.device)
        pictures = [picture for each in latents.split(1) for picture in decode_latents(self.vae, each, self.cache.spec)]
        self.vae.to("cpu")
        return pictures

    def write(self, state: State, record: Record) -> dict[str, float]:
        """Draw, write pictures and sounds to samples/step-N, and return what was measured of them."""
        spec, folder = self.cache.spec, self.config.out / "samples" / f"step-{state.step:06d}"
        pictures = self.draw()
        folder.mkdir(parents=True, exist_ok=True)
        errors = []
        for index, levels in enumerate(pictures):
            write_spectrogram(folder / f"{index:02d}.png", Spectrogram(levels, spec, record))
            sound = invert(levels, spec, "fast", device=str(self.model.device))
            write_audio(folder / f"{index:02d}.wav", sound, spec.sample_rate, record, spec=spec)
            errors.append(pixel_rmse(levels, sound, spec))
        values = [dequantise(levels) for levels in pictures]
        spread = diversity(values)
        if state.history.diversity is None:
            state.history.diversity = spread
        if alarm := diversity_alarm(spread, state.history.diversity, self.config.samples.diversity):
            log(alarm)
        return {
            "samples/diversity": spread,
            "samples/level": float(np.mean([value.mean() for value in values])),
            "samples/inconsistency": float(np.mean(errors)),
        }

    def _embeddings(self) -> tuple[TextEmbeddings, TextEmbeddings]:
        model = self.model
        if self._text is None:
            hidden, pooled = model.encode([*self.prompts, ""])
        else:
            hidden, pooled = (each.to(model.device, model.dtype) for each in self._text)
        return TextEmbeddings(hidden[:-1], pooled[:-1]), TextEmbeddings(hidden[-1:], pooled[-1:])

    @torch.no_grad()
    def _frozen_text(self) -> TextEmbeddings:
        encoders: Any = open_base(self.config.base, TEXT_ENCODERS)
        return encode_prompts(encoders, [*self.prompts, ""], self.cache.clip_skip)


def diversity(values: Sequence[NDArray[np.floating[Any]]]) -> float:
    """Return the mean over pairs of the root mean square difference of two pictures (values 0..1)."""
    pairs = [float(np.sqrt(np.mean((one - two) ** 2))) for one, two in combinations(values, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def diversity_alarm(now: float, first: float, allowed: float) -> str | None:
    """Return a warning if samples have become too alike."""
    if now >= allowed * first:
        return None
    return (
        f"ALARM: samples differ by {now:.3f}, by {first:.3f} at first: the LoRA forgets everything but one sound; "
        "fewer steps, a lower rate or regularization.share would help"
    )


def _anchored(prompt: str, anchor: str) -> str:
    return prompt if prompt.startswith(anchor) else f"{anchor}, {prompt}"

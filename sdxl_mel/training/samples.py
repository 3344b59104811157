"""Pictures and their sound while training: the same prompts and seeds every time, so that only the model moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from sdxl_mel.arrays import Float
from sdxl_mel.diffusion.samplers import Drawing, Sampling, is_few_step
from sdxl_mel.files.audio import write_audio
from sdxl_mel.files.spectrogram import Spectrogram, write_spectrogram
from sdxl_mel.metrics.codec_fidelity import pixel_rmse
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import TEXT_ENCODERS, Part
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.progress import log
from sdxl_mel.record import Record
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.inversion.methods import invert
from sdxl_mel.sound.pixels import dequantise
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.training.state import State

SAMPLER = "dpmpp_2m"


@dataclass(frozen=True)
class Samples:
    """Draws a run's samples to `folder`/step-N with the model in training, as `generate` draws them.

    `before` is called first: it brings the model into the state to be looked at. Samples that differ by less than
    `least_diversity` of how they differed at first raise an alarm.
    """

    generator: Generator
    jobs: Sequence[Job]
    sampling: Sampling
    folder: Path
    least_diversity: float = 0.5
    before: Callable[[], None] = lambda: None

    def write(self, state: State, record: Record) -> dict[str, float]:
        """Draw, write pictures and sounds, and return what was measured of them."""
        self.before()
        spec, folder = self.generator.spec, self.folder / f"step-{state.step:06d}"
        # All at once, as they always were: the pictures of a run can be compared with those of an earlier one.
        results = self.generator.draw(self.jobs, self.sampling, batch=len(self.jobs))
        pictures = [result.levels for result in results]
        folder.mkdir(parents=True, exist_ok=True)
        errors = []
        for index, levels in enumerate(pictures):
            write_spectrogram(folder / f"{index:02d}.png", Spectrogram(levels, spec, record))
            sound = invert(levels, spec, "fast", device=self.generator.models.device)
            write_audio(folder / f"{index:02d}.wav", sound, spec.sample_rate, record, spec=spec)
            errors.append(pixel_rmse(levels, sound, spec))
        values = [dequantise(levels) for levels in pictures]
        measured = {
            "samples/level": float(np.mean([value.mean() for value in values])),
            "samples/inconsistency": float(np.mean(errors)),
        }
        if len(values) < 2:
            return measured
        spread = diversity(values)
        if state.history.diversity is None:
            state.history.diversity = spread
        if alarm := diversity_alarm(spread, state.history.diversity, self.least_diversity):
            log(alarm)
        return {"samples/diversity": spread} | measured


def generator_in_training(base: Base, unet: Any, lora: LoraHeader, *, vae: str | None, device: str) -> Generator:
    """Return a generator around the `unet` in training, and the text encoders of `base` if they are trained too.

    Frozen text encoders are opened for it. They and the VAE lie in the main memory while they do not work.
    """
    own = open_base(base.name, ("vae",), vae=vae)
    models, tokenizers = base.models | own.models | {"unet": unet}, base.tokenizers
    resting: list[Part] = ["vae"]
    if not base.text_encoders:
        frozen = open_base(base.name, TEXT_ENCODERS)
        models, tokenizers = models | frozen.models, frozen.tokenizers
        resting += TEXT_ENCODERS
    header = read_model_header(base.source.path) or LoraHeader()
    header = replace(header, spec=lora.spec, anchor=lora.anchor, clip_skip=lora.clip_skip)
    in_training = replace(base, models=models, tokenizers=tokenizers)
    return Generator(in_training, header=header, device=device, resting=resting, weighted=False)


def plan_samples(generator: Generator, prompts: Sequence[str], seed: int) -> list[Job]:
    """Return a job for each prompt, with its anchor and no longer than is read, as `generate` would have it."""
    fit = generator.fitting()
    return [
        Job(index + 1, prompt, (TimedText(0.0, fit(prompt)),), negative="", seed=derive_seed(seed, "sample", index))
        for index, prompt in enumerate(prompts)
    ]


def sampling_in_training(generator: Generator, steps: int, guidance: float | None) -> Sampling:
    """Return how samples are drawn: in `steps` steps, a few-step base as it asks; guidance None = the base's own."""
    few = any(is_few_step(drawing) for _, drawing in generator.trained.asked)
    stated = Drawing(guidance=guidance) if few else Drawing(SAMPLER, steps, guidance)
    return generator.settle(stated).sampling


def diversity(values: Sequence[Float]) -> float:
    """Return the mean over pairs of at least two pictures (values 0..1) of their root mean square difference."""
    pairs = [float(np.sqrt(np.mean((one - two) ** 2))) for one, two in combinations(values, 2)]
    return sum(pairs) / len(pairs)


def diversity_alarm(now: float, first: float, allowed: float) -> str | None:
    """Return a warning if samples have become too alike."""
    if now >= allowed * first:
        return None
    return (
        f"ALARM: samples differ by {now:.3f}, by {first:.3f} at first: the LoRA forgets everything but one sound; "
        "fewer steps, a lower rate or regularization.share would help"
    )

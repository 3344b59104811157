"""A given sound or picture, edited: varied as a whole, drawn anew in regions, made longer, or made a loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdxl_mel.arrays import Levels
from sdxl_mel.diffusion.samplers import Sampling
from sdxl_mel.diffusion.sampling import Known
from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.recording import Recording
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.seeding import derive_seed
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec, require_equal
from sdxl_mel.sound.pixels import quantise
from sdxl_mel.synthesis.canvas import CHUNK_FRAMES, Canvas, columns_of_loop
from sdxl_mel.synthesis.drawing import Drawer, memory_explained
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.jobs import Job, TimedText
from sdxl_mel.synthesis.layout import LOOP_COLUMNS, Layout
from sdxl_mel.synthesis.prepared import Prepared, encode_prepared, prepare_recording
from sdxl_mel.synthesis.regions import Patch, Region, place, require_apart, require_strength
from sdxl_mel.synthesis.results import Step

VARIED = 0.6
"""How far everything goes from what it was, where nothing is stated."""
JUNCTION_SECONDS = 1.0
"""What is drawn anew where a sound that is made a loop meets its start, where nothing is added there."""


@dataclass(frozen=True)
class Edit:
    """What becomes of a sound: drawn anew are `regions`, what is added, or without either everything.

    `prepend` and `extend` are seconds added before and after; `loop` makes the end lead into the start. `strength` is
    that of everything (None = VARIED), and of regions that state none (None = 1). A loop of which nothing else is
    stated is drawn anew where its end meets its start. Raises InputError for a strength that is none.
    """

    prompt: str = ""
    strength: float | None = None
    regions: Sequence[Region] = ()
    prepend: float = 0.0
    extend: float = 0.0
    loop: bool = False
    negative: str = ""

    def __post_init__(self) -> None:
        require_strength(self.strength, "--strength")
        if min(self.prepend, self.extend) < 0:
            raise InputError(f"--prepend {self.prepend:g} and --extend {self.extend:g}: give 0 or more seconds")

    @property
    def whole(self) -> bool:
        """Return whether everything is varied."""
        return not (self.regions or self.prepend or self.extend or (self.loop and self.strength is None))


@dataclass(frozen=True)
class Source:
    """What is edited, in the spec of the models: a recording with its samples, or a picture alone.

    `levels` (n_mels, frames, 1 or 3) are those of the picture; of a recording they are made when they are needed.
    """

    spec: MelSpec
    frames: int
    recording: Recording | None = None
    prepared: Prepared | None = None
    levels: Levels | None = None

    def picture(self, first: int, frames: int) -> Levels:
        """Return new levels of some frames; before the first and after the last there is silence."""
        if self.prepared is not None:
            return encode_prepared(self.prepared, first, frames, self.spec)
        assert self.levels is not None
        return Canvas(self.levels, self.spec).read(first, frames).copy()


class Passage(NamedTuple):
    """A passage to draw anew: its cells, its prompt and its seed."""

    patch: Patch
    prompt: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """The passages to draw on a canvas of so many `columns`; `frames` are kept, the source begins at column `shift`."""

    passages: tuple[Passage, ...]
    columns: int
    frames: int
    shift: int


@dataclass(frozen=True)
class Edited:
    """The picture of the result, and what was drawn anew in it: the `whole`, or passages.

    `drawn` are the latents of every passage's window, and what was known of them; `notes` say what of prompts was cut.
    """

    source: Source
    canvas: Canvas
    plan: Plan
    whole: bool
    notes: tuple[str, ...]
    drawn: tuple[tuple[Tensor, Known], ...]

    @property
    def levels(self) -> Levels:
        """Return the picture, (n_mels, frames, 1 or 3)."""
        return self.canvas.levels[:, : self.plan.frames]

    def mask(self) -> Levels:
        """Return how much of each pixel is drawn anew, (n_mels, frames), 0 to 255."""
        height, length, _ = self.canvas.levels.shape
        turns = (0, length) if self.canvas.loop else (0,)
        mask: Levels = np.zeros((height, self.plan.frames), np.uint8)
        for start in range(0, self.plan.frames, CHUNK_FRAMES):
            chunk = mask[:, start : start + CHUNK_FRAMES]
            for passage in self.plan.passages:
                for turn in turns:
                    np.maximum(chunk, quantise(passage.patch.weights(start + turn, chunk.shape[1])), out=chunk)
        return mask


def open_source(path: Path, spec: MelSpec) -> Source:
    """Open a sound, or one of our pictures. Raises InputError for what is neither, MismatchError for another spec."""
    if path.suffix.lower() in AUDIO_SUFFIXES:
        recording = Recording.open(path)
        prepared = prepare_recording(recording, spec)
        return Source(spec, -(-prepared.samples // spec.hop_length), recording, prepared)
    picture = read_spectrogram(path, spec)
    require_equal(picture.spec, spec, str(path), "the model")
    levels = picture.levels if spec.channels == "lmr" else picture.levels[..., :1]
    return Source(spec, levels.shape[1], levels=levels)


def plan_edit(edit: Edit, source: Source, seed: int) -> Plan:
    """Return what an edit draws. Raises InputError for regions that overlap or do not fit, and for too short a loop."""
    spec = source.spec
    per_second = spec.sample_rate / spec.hop_length / LATENT_FACTOR
    width, rows = spec.width // LATENT_FACTOR, spec.n_mels // LATENT_FACTOR
    shift, added = (max(1, round(each * per_second)) if each else 0 for each in (edit.prepend, edit.extend))
    more = round(edit.extend * spec.sample_rate / spec.hop_length)
    # What is added begins in the column in which the source ends; a loop ends with its last whole column.
    own = source.frames // LATENT_FACTOR if edit.extend or edit.loop else -(-source.frames // LATENT_FACTOR)
    if not edit.loop:
        added = -(-(source.frames + more) // LATENT_FACTOR) - own
    columns = shift + own + added
    if edit.loop:
        columns = columns_of_loop(columns, width)
        frames = columns * LATENT_FACTOR
        if columns < LOOP_COLUMNS:
            raise InputError(f"too short for a loop; the shortest has {LOOP_COLUMNS / per_second:.2f} s")
    else:
        frames = shift * LATENT_FACTOR + source.frames + more
        columns = max(columns, width)
    seconds, usual = source.frames * spec.hop_length / spec.sample_rate, edit.strength or 1.0
    passages = [
        Passage(
            place(region, spec, seconds, usual, shift),
            edit.prompt if region.prompt is None else region.prompt,
            derive_seed(seed, "region", index),
        )
        for index, region in enumerate(edit.regions)
    ]

    def full(first: int, after: int, word: str) -> Passage:
        return Passage(Patch(first, after, 0, rows, rows, 1.0), edit.prompt, derive_seed(seed, word))

    if shift:
        passages.append(full(0, shift, "prepend"))
    if added:
        passages.append(full(shift + own, columns, "extend"))
    if edit.whole:
        passages.append(Passage(Patch(0, columns, 0, rows, rows, edit.strength or VARIED), edit.prompt, seed))
    elif edit.loop and not (shift or added):
        around = max(1, round(JUNCTION_SECONDS * per_second / 2))
        passages.append(full(columns - around, columns + around, "junction"))
    require_apart([passage.patch for passage in passages], spec)
    return Plan(tuple(passages), columns, frames, shift)


def edit_source(
    generator: Generator,
    source: Source,
    edit: Edit,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int = 4,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Edited:
    """Return the source with its passages drawn anew, one after the other; `on_step` may raise to stop.

    Levels outside of a passage and its feather are those of the source, and the latents are bit for bit.
    """
    plan, sampling = plan_edit(edit, source, seed), sampling or generator.settle().sampling
    levels = source.picture(-plan.shift * LATENT_FACTOR, plan.columns * LATENT_FACTOR)
    canvas, fit = Canvas(levels, source.spec, edit.loop), generator.fitting(long=True)
    jobs = [
        Job(number, passage.prompt, (TimedText(0.0, fit(passage.prompt)),), edit.negative, passage.seed)
        for number, passage in enumerate(plan.passages, 1)
    ]

    taken = 0

    def drawer(job: Job, layout: Layout, known: Known) -> Drawer:
        return replace(generator.drawer([job], sampling, layout, batch), known=known, on_step=after_step)

    def steps_of(job: Job, patch: Patch) -> int:
        strength = torch.tensor(patch.strength).reshape(1, 1, 1, 1)
        return drawer(job, canvas.window(patch), Known(strength, strength)).steps_for(1)

    def draw(job: Job, layout: Layout, known: Known) -> Tensor:
        return drawer(job, layout, known).latents([job], [job.seed])

    def after_step(latents: Tensor) -> None:
        nonlocal taken
        taken += 1
        on_step(Step(taken, total, latents))

    total = sum(steps_of(job, passage.patch) for job, passage in zip(jobs, plan.passages))
    with memory_explained(generator.models.device):
        drawn = [
            canvas.redraw(generator.models, passage.patch, partial(draw, job))
            for job, passage in zip(jobs, plan.passages)
        ]
    return Edited(source, canvas, plan, edit.whole, tuple(fit.notes.values()), tuple(drawn))

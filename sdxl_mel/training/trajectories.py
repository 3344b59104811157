"""Trajectories of a teacher: a base, with its LoRAs, draws with guidance, and every point of its way is kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sdxl_mel.dataset.cache import Encoded, Encoder, existing_shards, make_shards, reusable_rows
from sdxl_mel.dataset.cache_plan import ShardPlan, deal_shards, latent_bytes
from sdxl_mel.diffusion.conditioning import TextEmbeddings, stacked
from sdxl_mel.diffusion.options import WalkSampler
from sdxl_mel.diffusion.sampling import Denoiser, Guidance, draw_noise
from sdxl_mel.diffusion.trajectories import Grid, beginning_at, trailing_grid, walk
from sdxl_mel.errors import InputError
from sdxl_mel.files.cache import Kind, key_of, latent_shape, open_cache, read_header, text_key
from sdxl_mel.files.prompts import read_prompts
from sdxl_mel.files.trajectories import TrajectoriesHeader, Trajectory, write_trajectories
from sdxl_mel.files.writer import only_writer
from sdxl_mel.models.lora.scaled import ScaledLora, input_hashes
from sdxl_mel.models.scheduler import prediction_of
from sdxl_mel.progress import progress
from sdxl_mel.record import Record
from sdxl_mel.seeding import derive_seed, numpy_generator
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.synthesis.drawing import encode_texts
from sdxl_mel.synthesis.generator import Generator
from sdxl_mel.synthesis.settings import Precision
from sdxl_mel.synthesis.stack import Acting

TEXTS_AT_ONCE = 32
TEXT_BYTES = 1 << 18
"""About what the embeddings of a text take; it decides how many share a file."""
DOING: Mapping[Kind, str] = {"text": "reading texts", "trajectories": "drawing trajectories"}


@dataclass(frozen=True)
class Course:
    """How a teacher goes from noise: in how many `steps` of what sampler, with what guidance.

    Its first step is at pure noise, or at the timestep `first`: where its own spacing begins there, its trajectories
    are then its own drawings, and what learns from them begins at pure noise all the same.
    """

    steps: int
    sampler: WalkSampler
    first: int | None
    guidance: float


@dataclass(frozen=True)
class Made:
    """What a folder of trajectories holds, how many were drawn now, and how many damaged files were made anew."""

    header: TrajectoriesHeader
    drawn: int
    damaged: int


def open_teacher(
    base: str,
    loras: Sequence[str],
    *,
    cache: Path | None = None,
    preset: str | None = None,
    anchor: str | None = None,
    dtype: Precision = "auto",
    device: str = "auto",
) -> Generator:
    """Open a base with its LoRAs; where they say no spec, anchor or clip skip, those of a `cache` hold.

    Raises MismatchError where they say others.
    """
    about = None if cache is None else read_header(cache)
    opened = {} if about is None else {"preset": about.spec, "anchor": about.anchor, "clip_skip": about.clip_skip}
    stated = {name: value for name, value in (("preset", preset), ("anchor", anchor)) if value is not None}
    settings: dict[str, Any] = opened | stated
    return Generator.open(base, loras=loras, dtype=dtype, device=device, keep_base=False, **settings)


def texts_for(teacher: Generator, cache: Path | None, prompts: Path | None) -> list[str]:
    """Return what a teacher is to draw: every wording of the training captions of a cache, or a file's prompts.

    Raises InputError where there are none.
    """
    if prompts is not None:
        fit = teacher.fitting()
        return list(dict.fromkeys(fit(line.prompt) for line in read_prompts(prompts)))
    assert cache is not None
    opened = open_cache(cache)
    keys = dict.fromkeys(key for example in opened.examples("train") for key in example.captions)
    if not keys:
        raise InputError(f"{cache}: its split 'train' is empty; give --prompts a file of prompts instead")
    return list(map(opened.caption, keys))


def make_trajectories(
    folder: Path,
    teacher: Generator,
    texts: Sequence[str],
    course: Course,
    *,
    count: int,
    seed: int,
    batch: int,
) -> Made:
    """Draw `count` trajectories of a teacher, for texts in turn, `batch` at a time.

    A row is addressed by all that decides it: rows that are there already, of a run that was interrupted or of a
    smaller one, are kept. The texts are shuffled anew whenever all of them had their turn. Raises InputError for a
    teacher whose LoRAs do not act all the time.
    """
    if any(acting != Acting() for acting in teacher.acting):
        raise InputError("--lora: a teacher's LoRAs act at every noise level and in all layers; leave @ and # out")
    with only_writer(folder):
        grid = trailing_grid(teacher.models.base.scheduler, course.steps)
        walked = beginning_at(grid, course.first, teacher.models.base.scheduler)
        about = about_teacher(teacher, walked, course)
        trajectories = plan_trajectories(texts, about, count, seed)
        words = {each.text: each.prompt for each in trajectories}
        plans = plan_shards(teacher.spec, words, trajectories, about, course.steps)
        found, damaged = existing_shards(folder)
        todo = [plan for plan in plans if folder / plan.name not in found]
        rows = reusable_rows(found.values(), {key for plan in todo for key, _ in plan.rows})
        by_key = {each.key: each for each in trajectories}
        encoders: dict[Kind, Encoder] = {
            "text": text_encoder(teacher),
            "trajectories": walker(teacher, walked, course, by_key, batch),
        }
        drawn = 0
        for kind, encoder in encoders.items():
            shards = [plan for plan in todo if plan.kind == kind]
            drawn = sum(key not in rows for plan in shards for key, _ in plan.rows)
            with progress(drawn, DOING[kind], "rows") as ticker:
                make_shards(folder, shards, rows, encoder if drawn else None, ticker)
        base = teacher.models.base
        header = TrajectoriesHeader(
            spec=teacher.spec,
            anchor=teacher.trained.anchor,
            clip_skip=teacher.trained.clip_skip,
            identity={str(part): digest for part, digest in base.identity.items() if part != "vae"},
            loras=loras_of(teacher.loras),
            guidance=course.guidance,
            sampler=course.sampler,
            prediction=prediction_of(base.scheduler.config),
            timesteps=grid.timesteps,
            alphas=grid.alphas,
            shards=tuple(sorted(plan.name for plan in plans)),
            trajectories=tuple(trajectories),
            record=Record(
                stage="trajectories",
                settings={"count": count, "seed": seed} | asdict(course),
                inputs=teacher.inputs,
            ),
        )
        write_trajectories(folder, header)
        return Made(header, drawn, len(damaged))


def loras_of(loras: Sequence[ScaledLora]) -> dict[str, str]:
    """Return the hash and the scale of each LoRA of a teacher, by its place."""
    hashes = [",".join(input_hashes([each]).values()) for each in loras]
    return {str(place): f"{digest}:{each.scale:g}" for place, (digest, each) in enumerate(zip(hashes, loras), 1)}


def about_teacher(teacher: Generator, grid: Grid, course: Course) -> dict[str, str]:
    """Return what all rows of trajectories share: everything that decides them but prompt and seed."""
    identity = {str(part): digest for part, digest in teacher.models.base.identity.items() if part != "vae"}
    drawn = {
        "spec": teacher.spec.to_json(),
        "clip_skip": str(teacher.trained.clip_skip),
        "guidance": f"{course.guidance:g}",
        "timesteps": ",".join(map(str, grid.timesteps)),
        "dtype": teacher.dtype,
    }
    # DDIM was the only one once: its rows keep their keys.
    drawn |= {} if course.sampler == "ddim" else {"sampler": course.sampler}
    return identity | {f"lora {place}": digest for place, digest in loras_of(teacher.loras).items()} | drawn


def plan_trajectories(texts: Sequence[str], about: Mapping[str, str], count: int, seed: int) -> list[Trajectory]:
    """Return what is drawn, in order: the n-th of more is the n-th of fewer."""
    planned = []
    for index in range(count):
        turn, place = divmod(index, len(texts))
        text = texts[int(numpy_generator(seed, "trajectory texts", turn).permutation(len(texts))[place])]
        noise = derive_seed(seed, "trajectory", index)
        shared = json.dumps(dict(about), sort_keys=True)
        planned.append(
            Trajectory(
                key=key_of("trajectory", shared, text, noise), text=_text_key(text, about), prompt=text, seed=noise
            )
        )
    return planned


def _text_key(text: str, about: Mapping[str, str]) -> str:
    encoders = [digest for part, digest in sorted(about.items()) if part.startswith(("text_encoder", "lora", "dtype"))]
    return text_key(text, encoders, int(about["clip_skip"]))


def plan_shards(
    spec: MelSpec, texts: Mapping[str, str], trajectories: Sequence[Trajectory], about: dict[str, str], points: int
) -> list[ShardPlan]:
    """Return the shards; `texts` are words by their key, `points` the states of a trajectory after its noise."""
    row_bytes = latent_bytes(spec) // 2 * (points + 1)
    drawn = ((each.key, each.key) for each in trajectories)
    return [
        *deal_shards("text", about, texts.items(), TEXT_BYTES),
        *deal_shards("trajectories", about, drawn, row_bytes),
    ]


def text_encoder(teacher: Generator) -> Encoder:
    """Return the encoder of texts with a teacher, read as training captions are."""

    def encode(texts: Sequence[str], _names: Sequence[str]) -> Encoded:
        read = stacked(list(_texts_of(teacher, texts).values()))
        return read.prompt_embeds.to("cpu", torch.float32), read.pooled_prompt_embeds.to("cpu", torch.float32)

    return Encoder(lambda label: label, encode, TEXTS_AT_ONCE)


def walker(teacher: Generator, grid: Grid, course: Course, by_key: Mapping[str, Trajectory], batch: int) -> Encoder:
    """Return what draws the trajectories of `by_key`, `batch` at a time."""
    models, prediction = teacher.models, prediction_of(teacher.models.base.scheduler.config)
    shape = latent_shape(teacher.spec)
    time_ids = models.base.family.time_ids(teacher.spec.n_mels, teacher.spec.width)

    @torch.inference_mode()
    def encode(keys: Sequence[str], _names: Sequence[str]) -> Encoded:
        drawn = [by_key[key] for key in keys]
        texts = _texts_of(teacher, ["", *(each.prompt for each in drawn)])
        text = stacked([texts[each.prompt] for each in drawn])
        noise = draw_noise([each.seed for each in drawn], shape, models.device)
        with models.working("unet") as unet:
            denoiser = Denoiser(unet, time_ids, texts[""], Guidance(course.guidance))
            states = list(walk(noise, grid, prediction, lambda x, t: denoiser.predict(x, t, text), course.sampler))
        return noise.to("cpu"), torch.stack(states, dim=1).to("cpu")

    return Encoder(lambda key: key, encode, batch)


def _texts_of(teacher: Generator, texts: Sequence[str]) -> dict[str, TextEmbeddings]:
    return encode_texts(teacher.models, list(dict.fromkeys(texts)), teacher.trained.clip_skip, weighted=False)

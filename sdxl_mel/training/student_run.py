"""A run that distils a smaller UNet, from its settings to its result."""

from pathlib import Path

import torch

from sdxl_mel.diffusion.conditioning import TextEmbeddings, unet_conditions
from sdxl_mel.files.cache import latent_shape, open_cache
from sdxl_mel.files.run import BASE_NAME
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.files.trajectories import HEADER_NAME
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.derived import write_derived_base
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.student import Student, StudentShape, new_student, student_of
from sdxl_mel.record import sha256_file
from sdxl_mel.training.batches import DECILES, TrainingData, diffusion_of
from sdxl_mel.training.distillation import (
    cached_splits,
    guidance_of,
    header_of_base,
    header_of_distillation,
    write_card,
)
from sdxl_mel.training.drawn_points import open_drawn_points
from sdxl_mel.training.loop import Results
from sdxl_mel.training.lora_task import choose_clips
from sdxl_mel.training.model import prepared_unet, quick_attention
from sdxl_mel.training.run import Prepared, carry_out, start_run
from sdxl_mel.training.student_costs import estimate_distillation
from sdxl_mel.training.student_settings import Config
from sdxl_mel.training.student_task import StudentTask, Teacher


def train_student(config: Config) -> Results | None:
    """Distil a smaller UNet, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = cached_splits(cache)
        base = open_base(config.base, ("unet",), run.dtype, vae=config.vae, device=run.device)
        inputs = {"trajectories": sha256_file(config.trajectories / HEADER_NAME)} if config.trajectories else {}
        header = header_of_distillation(run, base, cache, inputs)
        drawn = None
        if config.trajectories:
            drawn = open_drawn_points(config.trajectories, header, config.drawn, config.seed)
        spec = cache.header.spec
        sizes = base.family.time_ids(*reversed(spec.size))
        guidance = guidance_of(config.loss.guidance, base)
        teacher = Teacher(base.unet, None if sizes is None else sizes.to(run.device), guidance)
        data = TrainingData(cache, splits, diffusion_of(base), config.data)
        student = new_or_pruned(config, teacher, data)
        prepared_unet(student.unet, config.hardware, run.device)
        size, whole = (sum(each.numel() for each in unet.parameters()) for unet in (student.unet, base.unet))
        share = f"a UNet of {size / 1e6:.1f} M parameters, {size / whole:.0%} of {whole / 1e6:.1f} M"
        task = StudentTask(
            student,
            teacher,
            data,
            config.loss,
            rate=config.optimizer.rate,
            clips=choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {},
            write=lambda folder: write(folder, base, student, header),
            accelerator=run.accelerator,
            drawn=drawn,
        )
        about = [
            f"The base `{config.base}` with {share}. `config.toml` starts it again.",
            f"`{config.out / BASE_NAME}` is a base for every command; LoRAs for the whole base do not fit it.",
        ]
        latent = latent_shape(spec)[1:]
        processes = run.accelerator.num_processes
        expected = estimate_distillation(student.unet, base.unet, latent, config.loop, processes) if run.main else None
        prepared = Prepared(
            task,
            header,
            lambda header: write_card(config.out, header, about),
            told=[f"{config.out.name}: {share}"],
            expected=expected,
            less="a smaller student or spectrogram preset",
            around=quick_attention(teacher),
        )
        return carry_out(run, prepared)


def new_or_pruned(config: Config, teacher: Teacher, data: TrainingData) -> Student:
    """Return the smaller UNet before it is trained.

    What matters in the teacher is measured on one clip at every tenth of the noise, with and without its caption.
    """
    settings = config.student
    shape = StudentShape(**settings.model_dump(exclude={"init"}))
    if settings.init == "random":
        return Student(new_student(teacher.unet, shape, config.seed), ())
    clips, device = data.train, teacher.unet.device
    tenths = [(clips[len(clips) * tenth // DECILES], tenth) for tenth in range(DECILES)]
    batch = data.fixed_batch(tenths).to(device, teacher.dtype)
    with_captions = batch.text
    assert isinstance(with_captions, TextEmbeddings)
    empty = zip(data.cache.text(data.cache.header.empty_text), with_captions)
    without = TextEmbeddings(*(each.to(own).expand_as(own) for each, own in empty))

    @torch.no_grad()
    def look() -> None:
        for text in (with_captions, without):
            teacher.unet(batch.noisy, batch.timesteps, **unet_conditions(text, teacher.time_ids))

    return student_of(teacher.unet, shape, look)


def write(folder: Path, base: Base, student: Student, header: RunHeader) -> None:
    """Write the base with the smaller UNet."""
    architecture = Architecture(base.family, student.unet.config.layers_per_block)
    write_derived_base(folder / BASE_NAME, base, {"unet": student.unet}, header_of_base(header, base, architecture))

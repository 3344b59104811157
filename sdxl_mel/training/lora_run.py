"""A LoRA run from its settings to its result: open what it needs, refuse what does not belong together, train."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from sdxl_mel.errors import InputError
from sdxl_mel.files.cache import Cache, CachedExample, open_cache
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.lora.actions import remarks
from sdxl_mel.models.lora.file import DIFFUSERS_FILE, Lora, LoraHeader
from sdxl_mel.progress import log
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.training.batches import TrainingData, diffusion_of
from sdxl_mel.training.card import write_card
from sdxl_mel.training.estimate import estimate
from sdxl_mel.training.loop import Results, Sample
from sdxl_mel.training.lora_settings import Config
from sdxl_mel.training.lora_task import LoraTask, Objective, choose_clips
from sdxl_mel.training.model import build_model, compile_blocks, quick_attention, start_from
from sdxl_mel.training.run import Prepared, Run, carry_out, run_header, start_run
from sdxl_mel.training.samples import Samples, generator_in_training, plan_samples, sampling_in_training

PAINTS = "A LoRA that makes SDXL paint mel spectrograms of music"
Splits = Mapping[str, list[CachedExample]]


def train_lora(config: Config) -> Results | None:
    """Train a LoRA, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        cache = open_cache(config.cache)
        splits = open_splits(config, cache)
        parts = ("unet", *(TEXT_ENCODERS if config.adapter.text_encoders else ()))
        base = open_base(config.base, parts, run.dtype, vae=config.vae)
        header = header_of_run(config, run, base, cache)
        task = open_task(config, base, cache, splits, header=header, accelerator=run.accelerator)
        # Costs are counted for the line that one process prints.
        spec, processes = cache.header.spec, run.accelerator.num_processes
        again = config.regularization.share if config.regularization.target == "base" else 0.0
        expected = estimate(task.model, spec, config.loop, processes, asked_again=again) if run.main else None
        notes = remarks(Lora(task.model.adapters.to_modules(), task.header), "kohya") if run.main else ()
        if config.hardware.compile:
            compile_blocks(task.model.unet)
        prepared = Prepared(
            task,
            header,
            lambda header: write_card(config.out, header, PAINTS, notes),
            told=[described(config, splits)],
            notes=notes,
            expected=expected,
            less=f"--adapter.rank {max(1, config.adapter.rank // 2)} or a smaller spectrogram preset",
            open_sampler=lambda: open_sampler(config, task, base, splits, header.record),
            around=quick_attention(task.model),
        )
        return carry_out(run, prepared)


def open_splits(config: Config, cache: Cache) -> Splits:
    """Return the splits that the run reads. Raises InputError for one that is empty and needed."""
    splits = {split: list(cache.examples(split)) for split in ("train", "validation", "regularization")}
    needed = {
        "train": "there is nothing to train on",
        "validation": "validation.patience needs held-out tracks" if config.validation.patience else "",
        "regularization": "regularization.share needs it" if config.regularization.share else "",
    }
    for split, reason in needed.items():
        if reason and not splits[split]:
            raise InputError(
                f"{config.cache}: its split {split!r} is empty: {reason}; prepare the dataset with one, and cache it"
            )
    return splits


def header_of_run(config: Config, run: Run, base: Base, cache: Cache) -> RunHeader:
    """Return what run.json will say.

    Raises MismatchError unless the cache was made with this base, for the pictures it makes, and a resumed run is
    still the same.
    """
    prediction = diffusion_of(base).prediction
    identity: dict[str, str] = {part: base.identity_of(part) for part in base.family.parts if part != "vae"}
    identity |= {"vae": base.latents_identity}
    cache.require_identity(identity, config.base)
    if base.spec is not None:
        require_equal(base.spec, cache.header.spec, f"base {config.base}", f"cache {config.cache}")
    inputs = {"cache": sha256_file(config.cache / "cache.json")} | identity
    if (init := config.adapter.init) is not None:
        inputs["init"] = sha256_file(init / DIFFUSERS_FILE if init.is_dir() else init)
    if prediction != "epsilon":
        inputs["prediction"] = prediction
    about = cache.header
    return run_header(
        run, spec=about.spec, anchor=about.anchor, clip_skip=about.clip_skip, identity=identity, inputs=inputs
    )


def open_task(
    config: Config, base: Base, cache: Cache, splits: Splits, *, header: RunHeader, accelerator: Accelerator
) -> LoraTask:
    """Return the LoRA to be trained: fresh, or that of `adapter.init`."""
    diffusion = diffusion_of(base)
    model = build_model(
        base,
        config.adapter,
        config.hardware,
        clip_skip=cache.header.clip_skip,
        size=cache.header.spec.size,
        device=accelerator.device,
        seed=config.seed,
    )
    if config.adapter.init is not None:
        start_from(config.adapter.init, model.adapters, base, cache.header.spec, header.identity)
    objective = Objective(config.loss, diffusion, config.steps).to(accelerator.device)
    if (warning := objective.warning()) and accelerator.is_main_process:
        log(warning)
    encodes = bool(config.adapter.text_encoders)
    return LoraTask(
        model,
        TrainingData(cache, splits, diffusion, config.data, encodes_captions=encodes),
        objective,
        header=header_of_lora(header, base),
        adapter=config.adapter,
        optimizer=config.optimizer,
        clips=choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {},
        accelerator=accelerator,
    )


def header_of_lora(header: RunHeader, base: Base) -> LoraHeader:
    """Return what the LoRA file will say."""
    settings: Any = header.settings
    optimizer, loss = settings["optimizer"], settings["loss"]
    training = {
        "learning_rate": f"{optimizer['rate']:g}",
        "optimizer": optimizer["name"],
        "steps": str(settings["steps"]),
        "total_batch_size": str(settings["batch"]),
        "seed": str(settings["seed"]),
        "noise_offset": f"{settings['noise']['offset']:g}",
        "min_snr_gamma": f"{loss['gamma']:g}" if loss["weighting"] == "min-snr" else "None",
        "loss_type": loss["kind"],
        "clip_skip": str(header.clip_skip),
        "caption_dropout_rate": f"{settings['caption_dropout']:g}",
    }
    if base.scheduler.config.get("rescale_betas_zero_snr"):
        training["zero_terminal_snr"] = "True"
    identity = {part: made_by for part, made_by in header.identity.items() if part != "vae"}
    return LoraHeader(
        spec=header.spec,
        anchor=header.anchor,
        clip_skip=header.clip_skip,
        base=identity,  # type: ignore[arg-type]
        record=header.record,
        training=training,
        architecture=base.architecture,
        prediction=base.scheduler.config.prediction_type,
    )


def open_sampler(config: Config, task: LoraTask, base: Base, splits: Splits, record: Record) -> Sample | None:
    """Return what draws samples of a state, if any are wanted."""
    if not config.samples.every:
        return None
    settings, model, cache = config.samples, task.model, task.data.cache
    generator = generator_in_training(base, model.unet, task.header, vae=config.vae, device=str(model.device))
    clips = splits["validation"] or splits["train"]
    chosen = [clips[len(clips) * index // settings.count] for index in range(settings.count)]
    prompts = settings.prompts or [cache.caption(clip.captions[0]) for clip in chosen]
    jobs = plan_samples(generator, [prompts[index % len(prompts)] for index in range(settings.count)], config.seed)
    if model.encoders is None:
        generator.read_texts(jobs)
        generator.release_text_encoders()

    def before() -> None:
        model.adapters.clear_masks()
        if model.encoders is not None:
            generator.texts.clear()

    samples = Samples(
        generator,
        jobs,
        sampling_in_training(generator, settings.steps, settings.guidance),
        config.out / "samples",
        settings.diversity,
        before,
    )
    return lambda state: samples.write(state, record)


def described(config: Config, splits: Splits) -> str:
    """Return a line that says what will be trained."""
    clips = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items() if examples)
    strength = config.adapter.alpha_or_rank / config.adapter.rank * config.optimizer.rate
    return f"{config.out.name}: {config.steps} steps of {config.batch} on {clips}; alpha / rank x rate = {strength:g}"

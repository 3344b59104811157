"""A LoRA run from its settings to its folder: open what it needs, refuse what does not belong together, train."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError, MismatchError, MissingError, ResourceError
from sdxl_mel.files.cache import Cache, CachedExample, open_cache
from sdxl_mel.files.run import RunHeader, is_run, read_run, to_toml, write_run
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import DTYPES, TEXT_ENCODERS
from sdxl_mel.models.lora.actions import remarks
from sdxl_mel.models.lora.adapters import Adapters
from sdxl_mel.models.lora.file import DIFFUSERS_FILE, Lora, LoraHeader, read_lora
from sdxl_mel.progress import log
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.training.batches import Diffusion, TrainingData
from sdxl_mel.training.card import push, write_card
from sdxl_mel.training.estimate import Estimate, compare, estimate, warn_of_memory
from sdxl_mel.training.loop import SECONDS, Results, Sample, train
from sdxl_mel.training.lora_task import LoraTask, Objective, choose_clips
from sdxl_mel.training.model import build_model, compile_blocks, quick_attention
from sdxl_mel.training.samples import Samples, generator_in_training, plan_samples, sampling_in_training
from sdxl_mel.training.settings import Config

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where Open MPI, MPICH and MVAPICH say how many processes they started."""
Splits = Mapping[str, list[CachedExample]]


def train_lora(config: Config) -> Results | None:
    """Train a LoRA, or resume, and return what it came to; None for a dry run. Every process runs this."""
    earlier = claim_folder(config)
    accelerator = start_accelerator(config)
    device, main = accelerator.device, accelerator.is_main_process
    cache = open_cache(config.cache)
    splits = open_splits(config, cache)
    base = open_base(
        config.base,
        ("unet", *(TEXT_ENCODERS if config.adapter.text_encoders else ())),
        dtype_of(config, device),
        vae=config.vae,
    )
    header = run_header(config, base, cache, earlier)
    task = open_task(config, base, cache, splits, header=header, accelerator=accelerator)
    # Costs are counted for the line that one process prints.
    expected = estimate(task.model, cache.header.spec, config.loop, accelerator.num_processes) if main else None
    if expected:
        describe(config, header, splits, expected)
        notes = remarks(Lora(task.model.adapters.to_modules(), task.header), "kohya")
        for note in notes:
            log(note)
        warn_of_memory(expected, device)
    if config.dry_run:
        return None
    if main:
        write_run(config.out, header)
    if config.hardware.compile:
        compile_blocks(task.model.unet)
    accelerator.wait_for_everyone()
    if config.trackers:
        accelerator.init_trackers("curves")
    sample = open_sampler(config, task, base, splits, header.record) if main else None
    try:
        with quick_attention(task.model):
            results = train(
                task,
                config.loop,
                config.out,
                accelerator,
                resume=earlier is not None,
                changed=config.resume_with_changes,
                sample=sample,
            )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(memory_advice(config)) from error
    if expected:
        if isinstance(seconds := results.get(SECONDS), float):
            log(compare(expected, seconds, device))
        if earlier and SECONDS in earlier.results:
            results = {SECONDS: earlier.results[SECONDS]} | results
        header = header.model_copy(update={"results": results})
        write_run(config.out, header)
        write_card(config.out, header, notes)
        if config.push_to_hub:
            push(config.out, config.push_to_hub)
    accelerator.end_training()
    return results


def claim_folder(config: Config) -> RunHeader | None:
    """Return what a run to be resumed says of itself, None for a new one. Raises InputError rather than overwrite."""
    folder = config.out
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    if not is_run(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: has files in it that are no run; give another --out")
        return None
    if not (config.resume or config.resume_with_changes):
        raise InputError(
            f"{folder}: there is a run in it already; --resume continues it, another --out starts a new one"
        )
    return read_run(folder)


def _processes_launched() -> int:
    """Return how many processes `accelerate launch`, torchrun or MPI say that they started, this one included."""
    names = [*MPI_SIZES, *(["WORLD_SIZE"] if "LOCAL_RANK" in os.environ else [])]
    return max((int(os.environ.get(name, "1")) for name in names), default=1)


def start_accelerator(config: Config) -> Accelerator:
    """Return accelerate's view of the devices; precision is ours, so that nothing is autocast."""
    trackers = [name for name in config.trackers if find_spec(name)]
    if "wandb" in config.trackers and "wandb" not in trackers:
        raise MissingError("trackers: wandb is not installed; pip install wandb, or leave it out")
    accelerator = Accelerator(mixed_precision="no", log_with=trackers or None, project_dir=str(config.out))
    if accelerator.num_processes < (launched := _processes_launched()):
        raise MismatchError(
            f"{launched} processes were started, and none sees the others: accelerate's config asks for GPUs and there "
            "is none here, or something else started them; run `accelerate config` again, or "
            "`accelerate launch --cpu ...`"
        )
    if accelerator.device.type == "cuda":
        # An overrun is an error then: drivers would else spill to the host without a word.
        torch.cuda.set_per_process_memory_fraction(1.0, accelerator.device)
    if config.hardware.tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return accelerator


def dtype_of(config: Config, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in: what was asked, or what `accelerate launch` asks, or what the device likes."""
    if config.hardware.precision != "auto":
        return DTYPES[config.hardware.precision]
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
    return DTYPES["bf16" if launched or (device.type == "cuda" and torch.cuda.is_bf16_supported()) else "fp32"]


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


def run_header(config: Config, base: Base, cache: Cache, earlier: RunHeader | None) -> RunHeader:
    """Return what run.json will say.

    Raises MismatchError unless the cache was made with this base, for the pictures it makes, and a resumed run is
    still the same.
    """
    prediction = diffusion_of(base).prediction
    identity: dict[str, str] = {part: base.identity_of(part) for part in base.family.parts if part != "vae"}
    identity |= {"vae": base.identity_of("vae")}
    cache.require_identity(identity, config.base)
    if base.spec is not None:
        require_equal(base.spec, cache.header.spec, f"base {config.base}", f"cache {config.cache}")
    inputs = {"cache": sha256_file(config.cache / "cache.json")} | identity
    if (init := config.adapter.init) is not None:
        inputs["init"] = sha256_file(init / DIFFUSERS_FILE if init.is_dir() else init)
    if prediction != "epsilon":
        inputs["prediction"] = prediction
    changes: dict[str, Any] = {}
    if earlier:
        before = validated(Config, earlier.settings, str(config.out / "run.json"))
        made_with = {"prediction": "epsilon"} | earlier.record.inputs
        now = {"prediction": "epsilon"} | {name: each for name, each in inputs.items() if name in made_with}
        changes = changed(before.recorded(), config.recorded()) | changed(made_with, now)
        if changes and not config.resume_with_changes:
            listed = ", ".join(f"{name} {one!r} -> {two!r}" for name, (one, two) in changes.items())
            raise MismatchError(
                f"{config.out}: settings or inputs changed since it was started: {listed}; "
                "take them back, or give --resume-with-changes, which records them"
            )
    return RunHeader(
        spec=cache.header.spec,
        anchor=cache.header.anchor,
        clip_skip=cache.header.clip_skip,
        identity=identity,
        settings=config.model_dump(mode="json", exclude={"resume", "resume_with_changes", "dry_run"}),
        changes=(*(earlier.changes if earlier else ()), *([changes] if changes else ())),
        record=Record(stage="train", settings=config.recorded(), inputs=inputs),
    )


def changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what differs between two nested mappings, as {dotted name: [before, now]}."""
    changes: dict[str, Any] = {}
    for name in sorted({*before, *now}):
        one, two = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            changes |= changed(one, two, f"{prefix}{name}.")
        elif one != two:
            changes[prefix + name] = [one, two]
    return changes


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
        start_from(config.adapter.init, model.adapters, cache, base, header.identity)
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


def diffusion_of(base: Base) -> Diffusion:
    """Return the base's noise schedule. Raises InputError for one that cannot be trained as it stands."""
    alphas, prediction = base.scheduler.alphas_cumprod.double(), base.scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"{base.name}: predicts {prediction!r}; epsilon and v_prediction can be trained")
    diffusion = Diffusion(alphas, prediction)
    if prediction == "epsilon" and diffusion.ends_in_noise:
        raise InputError(
            f"{base.name}: zero terminal SNR with epsilon prediction has no image to learn from at the last step"
        )
    return diffusion


def start_from(path: Path, adapters: Adapters, cache: Cache, base: Base, identity: Mapping[str, str]) -> None:
    """Load a LoRA to continue. Raises MismatchError unless it belongs to this base and spec and has these layers."""
    lora = read_lora(path)
    lora.require_low_rank(str(path))
    lora.require_family(base.family, str(path), base.name)
    if lora.header.spec is not None:
        require_equal(lora.header.spec, cache.header.spec, str(path), "the cache")
    other = [part for part, made_for in lora.header.base.items() if identity.get(part) != made_for]
    if other:
        raise MismatchError(f"{path}: trained on another {' and '.join(other)}; give the base it was trained on")
    adapters.load(lora.modules, str(path))


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


def describe(config: Config, header: RunHeader, splits: Splits, expected: Estimate) -> None:
    """Say what will be trained, with every setting where that is all that is wanted."""
    clips = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items() if examples)
    strength = config.adapter.alpha_or_rank / config.adapter.rank * config.optimizer.rate
    log(f"{config.out.name}: {config.steps} steps of {config.batch} on {clips}; alpha / rank x rate = {strength:g}")
    for line in expected.lines():
        log(line)
    if config.dry_run:
        log(to_toml(header.settings))


def memory_advice(config: Config) -> str:
    """Return what to change when the memory does not suffice, the cheapest first."""
    advice, at_once = [], config.micro_batch or config.batch
    if at_once > 1:
        advice.append(f"--micro-batch {at_once // 2} (same result, a little slower)")
    if not config.hardware.gradient_checkpointing:
        advice.append("--hardware.gradient-checkpointing (same result, a third slower)")
    if config.optimizer.name == "adamw":
        advice.append("--optimizer.name adamw-8bit")
    advice.append(f"--adapter.rank {max(1, config.adapter.rank // 2)} or a smaller spectrogram preset")
    return f"out of memory with batch {config.batch}; lower it by {', or '.join(advice)}; then --resume"

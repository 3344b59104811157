"""One run from its settings to its folder."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import JsonValue

from sdxl_mel.errors import MissingError
from sdxl_mel.files.cache import Cache, CachedExample, open_cache
from sdxl_mel.files.run import LORA_NAME, RunHeader, to_toml, write_run
from sdxl_mel.models.base import Base
from sdxl_mel.models.lora.file import LoraHeader, read_lora
from sdxl_mel.progress import log
from sdxl_mel.record import Record, sha256_file
from sdxl_mel.stages.train import Report
from sdxl_mel.training.artefacts import (
    push,
    results_of,
    write_card,
    write_checkpoint,
    write_curves,
)
from sdxl_mel.training.batches import Diffusion, TrainingData
from sdxl_mel.training.best_weights import write_best
from sdxl_mel.training.ema import Averages
from sdxl_mel.training.estimate import Estimate, compare, estimate, guard_memory
from sdxl_mel.training.log import Log
from sdxl_mel.training.loop import Training, train
from sdxl_mel.training.model import Model, build_model, parameter_groups
from sdxl_mel.training.objective import Objective
from sdxl_mel.training.optimizers import build_optimizer, evaluation_weights
from sdxl_mel.training.settings import Config
from sdxl_mel.training.setup import (
    changed_settings,
    claim_folder,
    diffusion_of,
    identity_of,
    open_parts,
    open_splits,
    require_fit,
    require_start,
    require_unchanged,
)
from sdxl_mel.training.state import State, load_state, saved_states
from sdxl_mel.training.validation import choose_clips

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train_session(config: Config) -> Report:
    """Open, train, write; every process runs this, the first one writes."""
    earlier = claim_folder(config)
    accelerator = start_accelerator(config)
    cache = open_cache(config.cache)
    splits = open_splits(config, cache)
    base = open_parts(config, dtype_of(config, accelerator.device))
    identity = identity_of(base)
    require_fit(config, base, identity, cache)
    header = run_header(config, cache, identity, earlier)
    diffusion = diffusion_of(base)
    model = open_model(config, base, cache, accelerator.device)
    state = fresh_state(config, model, cache, identity)
    expected = estimate(config, model, accelerator.num_processes)
    if accelerator.is_main_process:
        describe(config, header, splits, expected)
    if config.dry_run:
        return Report(folder=str(config.out), dry=True)
    guard_memory(expected, accelerator.device)
    if accelerator.is_main_process:
        write_run(config.out, header)
    accelerator.wait_for_everyone()
    if earlier is not None:
        resume(config, state)
    training = assemble(
        config,
        accelerator,
        model=model,
        cache=cache,
        splits=splits,
        diffusion=diffusion,
        state=state,
        header=header,
    )
    training.sample = open_sampler(training, base, cache, splits, header)
    train(training)
    results = finish(training, header, expected) if accelerator.is_main_process else {}
    accelerator.end_training()
    return Report(folder=str(config.out / LORA_NAME), results=results)


def start_accelerator(config: Config) -> Accelerator:
    """Return accelerate's view of the devices; precision is ours, so that nothing is autocast."""
    trackers = [name for name in config.trackers if find_spec(name)]
    if "wandb" in config.trackers and "wandb" not in trackers:
        raise MissingError("trackers: wandb is not installed; pip install wandb, or leave it out")
    accelerator = Accelerator(mixed_precision="no", log_with=trackers or None, project_dir=str(config.out))
    if config.hardware.tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return accelerator


def dtype_of(config: Config, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in: what was asked, or what `accelerate launch` asks, or what the device likes."""
    asked: str = config.hardware.precision
    if asked == "auto":
        asked = "bf16" if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16" else "auto"
    if asked == "auto":
        asked = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return DTYPES[asked]


def run_header(config: Config, cache: Cache, identity: dict[str, str], earlier: RunHeader | None) -> RunHeader:
    """Return what run.json will say, after checking that a resumed run is still the same."""
    settings: dict[str, JsonValue] = config.model_dump(mode="json")
    changes = earlier.changes if earlier else ()
    if earlier:
        altered = changed_settings(earlier.settings, settings)
        require_unchanged(config, altered)
        changes = (*changes, altered) if altered else changes
    kept = {name: value for name, value in settings.items() if name not in ("resume", "resume_with_changes", "dry_run")}
    inputs = {"cache": sha256_file(config.cache / "cache.json")}
    recorded = {name: value for name, value in kept.items() if name not in ("out", "cache", "base", "vae")}
    return RunHeader(
        spec=cache.spec,
        anchor=cache.anchor,
        clip_skip=cache.clip_skip,
        identity=identity,
        settings=kept,
        changes=changes,
        results=earlier.results if earlier else {},
        record=Record(stage="train", settings=recorded, inputs=inputs | identity),
    )


def open_model(config: Config, base: Base, cache: Cache, device: torch.device) -> Model:
    """Return the base with fresh adapters."""
    return build_model(
        base,
        config.adapter,
        config.hardware,
        alpha=config.alpha,
        clip_skip=cache.clip_skip,
        size=cache.spec.size,
        device=device,
        seed=config.seed,
    )


def fresh_state(config: Config, model: Model, cache: Cache, identity: dict[str, str]) -> State:
    """Return the state at step 0, from a LoRA if one is to be continued."""
    if config.adapter.init is not None:
        lora = read_lora(config.adapter.init)
        lora.require_family(model.architecture.family, str(config.adapter.init), config.base)
        require_start(lora, config.adapter.init, cache, identity)
        model.adapters.load(lora.modules, str(config.adapter.init))
    settings = config.optimizer
    optimizer = build_optimizer(
        settings.name,
        parameter_groups(model.adapters, settings),
        weight_decay=settings.weight_decay,
        betas=(settings.beta1, settings.beta2),
        epsilon=settings.epsilon,
        warmup=settings.warmup,
    )
    return State(model.adapters, optimizer, Averages(model.adapters.parameters(), config.averages.lengths))


def resume(config: Config, state: State) -> None:
    """Put the last saved state into `state`; a run that saved none starts over."""
    last = next(reversed(list(saved_states(config.out))), None)
    if last is not None:
        load_state(last, state)
    if config.resume_with_changes:
        state.notes.stopped = None
    log(f"{config.out}: going on from step {state.step}")


def assemble(
    config: Config,
    accelerator: Accelerator,
    *,
    model: Model,
    cache: Cache,
    splits: dict[str, list[CachedExample]],
    diffusion: Diffusion,
    state: State,
    header: RunHeader,
) -> Training:
    """Return everything the loop works with."""
    if config.trackers:
        accelerator.init_trackers("curves")
    objective = Objective(config.loss, diffusion, config.steps).to(accelerator.device)
    if warning := objective.warning():
        log(warning)
    lora_header = header_of_lora(header, model)
    return Training(
        config=config,
        accelerator=accelerator,
        model=model,
        training_data=TrainingData(cache, splits, config, diffusion),
        objective=objective,
        state=state,
        log=Log(config.out, accelerator, state.step),
        probe=choose_clips(splits, config.validation.clips, config.seed) if config.validation.every else {},
        checkpoint=lambda current: write_checkpoint(config.out, current, lora_header),
    )


def open_sampler(
    training: Training, base: Base, cache: Cache, splits: dict[str, list[CachedExample]], header: RunHeader
) -> Callable[[State], None] | None:
    """Return what draws samples of a state, if any are wanted."""
    config = training.config
    if not config.samples.every or not training.main:
        return None
    from sdxl_mel.training.samples import Samples, generator_in_training, plan_samples, sampling_in_training

    settings, model, clips = config.samples, training.model, splits["validation"] or splits["train"]
    generator = generator_in_training(
        base,
        model.unet,
        vae=config.vae,
        spec=cache.spec,
        anchor=cache.anchor,
        clip_skip=cache.clip_skip,
        device=str(model.device),
    )
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
    return lambda state: training.log.write(state.step, samples.write(state, header.record))


def describe(config: Config, header: RunHeader, splits: dict[str, list[CachedExample]], expected: Estimate) -> None:
    """Say what will be trained, with every setting where that is all that is wanted."""
    clips = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items() if examples)
    strength = config.alpha / config.adapter.rank * config.optimizer.rate
    log(f"{config.out.name}: {config.steps} steps of {config.batch} on {clips}; alpha / rank x rate = {strength:g}")
    for line in expected.lines():
        log(line)
    if config.dry_run:
        log(to_toml(header.settings))


def header_of_lora(header: RunHeader, model: Model) -> LoraHeader:
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
    base = {part: made_by for part, made_by in header.identity.items() if part != "vae"}
    return LoraHeader(
        spec=header.spec,
        anchor=header.anchor,
        clip_skip=header.clip_skip,
        base=base,  # type: ignore[arg-type]
        record=header.record,
        training=training,
        architecture=model.architecture,
    )


def finish(training: Training, header: RunHeader, expected: Estimate) -> dict[str, Any]:
    """Write the LoRA, the curves, the card and the results."""
    config, state = training.config, training.state
    if training.steps:
        log(compare(expected, training.seconds_per_step, training.model.device))
    with evaluation_weights(state.optimizer):
        chosen = write_best(training, header_of_lora(header, training.model))
    results = {**header.results, **results_of(state, training.seconds_per_step, chosen)}
    done = header.model_copy(update={"results": results})
    write_run(config.out, done)
    write_curves(config.out)
    write_card(config.out, done)
    if config.push_to_hub:
        push(Path(config.out), config.push_to_hub)
    return dict(results)

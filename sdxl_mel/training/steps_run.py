"""A run that trains a step adapter, from its settings to its result."""

from collections.abc import Sequence
from dataclasses import replace

from sdxl_mel.errors import MismatchError
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.files.trajectories import HEADER_NAME, Trajectories, TrajectoriesHeader, Trajectory, open_trajectories
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.lora.actions import remarks
from sdxl_mel.models.lora.adapters import attach
from sdxl_mel.models.lora.file import DIFFUSERS_FILE, Lora, LoraHeader
from sdxl_mel.models.lora.scaled import in_unet, read_loras
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.synthesis.attached import AttachedLoras
from sdxl_mel.training.batches import diffusion_of
from sdxl_mel.training.card import write_card
from sdxl_mel.training.estimate import estimate
from sdxl_mel.training.jumps import JumpData
from sdxl_mel.training.loop import Results
from sdxl_mel.training.model import Model, compile_blocks, prepared_unet, quick_attention, start_from
from sdxl_mel.training.run import Prepared, Run, carry_out, run_header, start_run
from sdxl_mel.training.step_objectives import DRAWN, Consistency, Objective, Segments, Unrolled
from sdxl_mel.training.steps_settings import Config
from sdxl_mel.training.steps_task import StepsTask
from sdxl_mel.training.task import HELD_OUT, TRAINED
from sdxl_mel.training.trajectories import loras_of

HELD_OUT_SHARE = 4
"""At most one trajectory in so many is held out."""


def train_steps(config: Config) -> Results | None:
    """Train a step adapter, or resume, and return what it came to; None for a dry run. Every process runs this."""
    with start_run(config) as run:
        source = open_trajectories(config.trajectories)
        base = open_base(config.base, ("unet",), run.dtype)
        header = header_of_run(config, run, base, source.header)
        # The texts of the trajectories are as the LoRAs' text encoders read them.
        AttachedLoras(base, keep=False).replace(in_unet(read_loras(config.lora)))
        task = open_task(config, run, base, source, header)
        spec, processes = source.header.spec, run.accelerator.num_processes
        calls = max(config.draw_steps) if config.objective == "unrolled" else 1
        expected = estimate(task.model, spec, config.loop, processes, calls=calls) if run.main else None
        notes = remarks(Lora(task.model.adapters.to_modules(), task.header), "kohya") if run.main else ()
        if config.hardware.compile:
            compile_blocks(task.model.unet)
        how = f"in {config.draw_steps[0]} steps without guidance what it draws at guidance {source.header.guidance:g}"
        data = task.data
        what = f"{config.steps} steps of {config.batch} on {len(data.trained)} trajectories of {len(data.grid)} points"
        card = f"A step adapter, with which `{config.base}` draws {how}"
        prepared = Prepared(
            task,
            header,
            lambda header: write_card(config.out, header, card, notes),
            told=[f"{config.out.name}: {what}, to draw {how}"],
            notes=notes,
            expected=expected,
            less=f"--adapter.rank {max(1, config.adapter.rank // 2)} or a smaller spectrogram preset",
            around=quick_attention(task.model),
        )
        return carry_out(run, prepared)


def header_of_run(config: Config, run: Run, base: Base, made: TrajectoriesHeader) -> RunHeader:
    """Return what run.json will say.

    Raises MismatchError unless this base with these LoRAs drew the trajectories, and a resumed run is still the same.
    """
    where = str(config.trajectories)
    if base.spec is not None:
        require_equal(base.spec, made.spec, f"base {config.base}", where)
    parts = {str(part): base.identity_of(part) for part in base.family.parts if part != "vae"}
    other = sorted(part for part in {*parts, *made.identity} if parts.get(part) != made.identity.get(part))
    if other:
        raise MismatchError(
            f"{where}: drawn by another teacher than {config.base}: its {', '.join(other)} differ; give the base that "
            "drew them, or draw them with this one"
        )
    loras = loras_of(read_loras(config.lora))
    if loras != made.loras:
        raise MismatchError(
            f"{where}: drawn with {len(made.loras)} LoRAs, found {len(loras)} here or others; give --lora as sdxl-mel "
            "trajectories had it, in the same order and scales"
        )
    inputs = {"trajectories": sha256_file(config.trajectories / HEADER_NAME)} | parts
    inputs |= {f"lora {place}": digest for place, digest in loras.items()}
    if (init := config.adapter.init) is not None:
        inputs["init"] = sha256_file(init / DIFFUSERS_FILE if init.is_dir() else init)
    if made.prediction != "epsilon":
        inputs["prediction"] = made.prediction
    return run_header(run, spec=made.spec, anchor=made.anchor, clip_skip=made.clip_skip, identity=parts, inputs=inputs)


def open_task(config: Config, run: Run, base: Base, source: Trajectories, header: RunHeader) -> StepsTask:
    """Return the adapter to be trained: fresh, or that of `adapter.init`. Raises InputError for steps off the grid."""
    diffusion_of(base)
    held_out, trained = parted(source.header.trajectories, config.validation.clips if config.validation.every else 0)
    data = JumpData(source, trained, draw_steps=config.draw_steps, batch=config.batch, seed=config.seed)
    adapter = config.adapter
    adapters = attach(
        {"unet": prepared_unet(base.unet, config.hardware, run.device)},
        targets=adapter.targets,
        rank=adapter.rank,
        alpha=adapter.alpha_or_rank,
        rank_patterns=adapter.rank_patterns,
        seed=config.seed,
    )
    if adapter.init is not None:
        start_from(adapter.init, adapters, base, header.spec, header.identity)
    spec = source.header.spec
    time_ids = base.family.time_ids(spec.n_mels, spec.width)
    model = Model(
        unet=base.unet,
        adapters=adapters,
        time_ids=None if time_ids is None else time_ids.to(run.device),
        dtype=base.unet.dtype,
        device=run.device,
    )
    return StepsTask(
        model,
        data,
        objective_of(config, data),
        loss=config.loss,
        rate=config.optimizer.rate,
        header=header_of_adapter(config, header, base),
        judged={HELD_OUT: held_out, TRAINED: trained[: len(held_out)]} if held_out else {},
        accelerator=run.accelerator,
    )


def objective_of(config: Config, data: JumpData) -> Objective:
    """Return what the adapter is trained for."""
    match config.objective:
        case "segments":
            return Segments(data, config.starts, config.rollouts, config.loss.measured)
        case "unrolled":
            return Unrolled(data)
        case "consistency":
            return Consistency(data)


def parted(trajectories: Sequence[Trajectory], held_out: int) -> tuple[Sequence[Trajectory], Sequence[Trajectory]]:
    """Return the trajectories that are held out, the first, at most a quarter of all, and those that are trained on."""
    count = min(held_out, len(trajectories) // HELD_OUT_SHARE)
    return trajectories[:count], trajectories[count:]


def header_of_adapter(config: Config, header: RunHeader, base: Base) -> LoraHeader:
    """Return what the file of the adapter will say."""
    training = {
        "learning_rate": f"{config.optimizer.rate:g}",
        "optimizer": config.optimizer.name,
        "steps": str(config.steps),
        "total_batch_size": str(config.batch),
        "seed": str(config.seed),
        "loss_type": config.loss.kind,
        "clip_skip": str(header.clip_skip),
    }
    return LoraHeader(
        spec=header.spec,
        anchor=header.anchor,
        clip_skip=header.clip_skip,
        base=header.identity,  # type: ignore[arg-type]
        record=header.record,
        training=training,
        architecture=base.architecture,
        drawing=replace(DRAWN[config.objective], steps=config.draw_steps[0]),
        prediction=base.scheduler.config.prediction_type,
    )

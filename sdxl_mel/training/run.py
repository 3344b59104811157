"""What the runs of all tasks share: a folder, devices, what run.json says, the loop around a task, its results."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator

from sdxl_mel.config import validated
from sdxl_mel.errors import InputError, MismatchError, MissingError, ResourceError
from sdxl_mel.files.run import MATERIAL, is_run, to_toml
from sdxl_mel.files.run_header import RunHeader, read_run, write_run
from sdxl_mel.files.writer import only_writer
from sdxl_mel.models.family import DTYPES
from sdxl_mel.progress import log
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec
from sdxl_mel.training.card import push, require_repository
from sdxl_mel.training.estimate import Estimate, compare, warn_of_memory
from sdxl_mel.training.loop import SECONDS, Results, Sample, train
from sdxl_mel.training.settings import TrainingConfig
from sdxl_mel.training.task import Task

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where Open MPI, MPICH and MVAPICH say how many processes they started."""


@dataclass(frozen=True)
class Run:
    """A run that has its folder and its devices; `earlier` is what it said of itself before it is resumed."""

    config: TrainingConfig
    accelerator: Accelerator
    earlier: RunHeader | None

    @property
    def device(self) -> torch.device:
        """Return the device of this process."""
        return self.accelerator.device

    @property
    def main(self) -> bool:
        """Return whether this process writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype to compute in: as asked, or as `accelerate launch` asks, or as the device likes."""
        if self.config.hardware.precision != "auto":
            return DTYPES[self.config.hardware.precision]
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
        return DTYPES["bf16" if launched or (self.device.type == "cuda" and torch.cuda.is_bf16_supported()) else "fp32"]


@dataclass(frozen=True)
class Prepared:
    """A task that is ready to be trained, and what is said of it.

    `told` are lines on what is trained, `notes` those on its result; `less` is what to lower last where the memory
    does not suffice. `write_card` is given what run.json says in the end; `open_sampler` is called where samples are
    drawn, and `around` holds while the loop runs.
    """

    task: Task
    header: RunHeader
    write_card: Callable[[RunHeader], None]
    told: Sequence[str] = ()
    notes: Sequence[str] = ()
    expected: Estimate | None = None
    less: str = "a smaller spectrogram preset"
    open_sampler: Callable[[], Sample | None] = lambda: None
    around: AbstractContextManager[None] = nullcontext()


@contextmanager
def start_run(config: TrainingConfig) -> Iterator[Run]:
    """Claim the folder of a run and its devices while the block trains. Every process calls this.

    Raises InputError rather than overwrite what is there, write beside another command, or train for a hub repository
    that can be none; MismatchError for a run of another task.
    """
    if config.push_to_hub is not None:
        require_repository(config.push_to_hub)
    earlier = claim_folder(config)
    if earlier and (task := earlier.settings.get("task", "lora")) != config.task:
        raise MismatchError(f"{config.out}: its run is one of --task {task}, not of {config.task}; give that task")
    accelerator = start_accelerator(config)
    writes = accelerator.is_main_process and not config.dry_run
    with only_writer(config.out) if writes else nullcontext():
        yield Run(config, accelerator, earlier)


def carry_out(run: Run, prepared: Prepared) -> Results | None:
    """Train a task, or resume, and return what it came to; None for a dry run. Every process calls this."""
    config, accelerator = run.config, run.accelerator
    if run.main:
        announce(run, prepared)
    if config.dry_run:
        return None
    if run.main:
        write_run(config.out, prepared.header)
    accelerator.wait_for_everyone()
    if config.trackers:
        accelerator.init_trackers("curves")
    sample = prepared.open_sampler() if run.main else None
    try:
        with prepared.around:
            results = train(
                prepared.task,
                config.loop,
                config.out,
                accelerator,
                resume=run.earlier is not None,
                changed=config.resume_with_changes,
                sample=sample,
            )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(memory_advice(config, prepared.less)) from error
    if run.main:
        results = conclude(run, prepared, results)
    accelerator.end_training()
    return results


def announce(run: Run, prepared: Prepared) -> None:
    """Say what will be trained, with every setting where that is all that is wanted."""
    for line in (*prepared.told, *(prepared.expected.lines() if prepared.expected else ())):
        log(line)
    if run.config.dry_run:
        log(to_toml(prepared.header.settings))
    for note in prepared.notes:
        log(note)
    if prepared.expected:
        warn_of_memory(prepared.expected, run.device)


def conclude(run: Run, prepared: Prepared, results: Results) -> Results:
    """Write what a finished run came to, and return it with the seconds of the run that was resumed."""
    config = run.config
    if prepared.expected and isinstance(seconds := results.get(SECONDS), float):
        log(compare(prepared.expected, seconds, run.device))
    if run.earlier and SECONDS in run.earlier.results:
        results = {SECONDS: run.earlier.results[SECONDS]} | results
    header = prepared.header.model_copy(update={"results": results})
    write_run(config.out, header)
    prepared.write_card(header)
    if config.push_to_hub:
        push(config.out, config.push_to_hub)
    return results


def claim_folder(config: TrainingConfig) -> RunHeader | None:
    """Return what a run to be resumed says of itself, None for a new one. Raises InputError rather than overwrite."""
    folder = config.out
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    if not is_run(folder):
        if folder.is_dir() and any(path.name not in MATERIAL for path in folder.iterdir()):
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


def start_accelerator(config: TrainingConfig) -> Accelerator:
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


def run_header(
    run: Run, *, spec: MelSpec, anchor: str, clip_skip: int, identity: Mapping[str, str], inputs: Mapping[str, str]
) -> RunHeader:
    """Return what run.json will say; `identity` has the hashes of the base's parts, `inputs` those of all that is read.

    Raises MismatchError unless a resumed run is still the same.
    """
    config, earlier = run.config, run.earlier
    changes: dict[str, Any] = {}
    if earlier:
        before = validated(type(config), earlier.settings, str(config.out / "run.json"))
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
        spec=spec,
        anchor=anchor,
        clip_skip=clip_skip,
        identity=dict(identity),
        settings=config.model_dump(mode="json", exclude={"resume", "resume_with_changes", "dry_run"}),
        changes=(*(earlier.changes if earlier else ()), *([changes] if changes else ())),
        record=Record(stage="train", settings=config.recorded(), inputs=dict(inputs)),
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


def memory_advice(config: TrainingConfig, less: str) -> str:
    """Return what to change when the memory does not suffice, the cheapest first; `less` comes last."""
    advice, at_once = [], config.micro_batch or config.batch
    if at_once > 1:
        advice.append(f"--micro-batch {at_once // 2} (same result, a little slower)")
    if not config.hardware.gradient_checkpointing:
        advice.append("--hardware.gradient-checkpointing (same result, a third slower)")
    if config.optimizer.name == "adamw":
        advice.append("--optimizer.name adamw-8bit")
    return f"out of memory with batch {config.batch}; lower it by {', or '.join([*advice, less])}; then --resume"

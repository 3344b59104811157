"""What the distillations share: a cache made with the teacher, what their runs say, and work over processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from sdxl_mel.errors import InputError
from sdxl_mel.files.atomic import write_text
from sdxl_mel.files.cache import Cache, CachedExample
from sdxl_mel.files.run import CURVES_NAME
from sdxl_mel.files.run_header import RunHeader
from sdxl_mel.models.base import Base
from sdxl_mel.models.header import read_model_header
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.header import LoraHeader
from sdxl_mel.models.scheduler import prediction_of
from sdxl_mel.progress import progress
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.training.run import Run, run_header

Splits = Mapping[str, list[CachedExample]]
NAMED_BY = 20
"""Digits of a key that name a file."""


def cached_splits(cache: Cache) -> Splits:
    """Return the splits of a cache. Raises InputError where there is nothing to train on."""
    splits = {split: cache.examples(split) for split in ("train", "validation", "regularization")}
    if not splits["train"]:
        raise InputError(
            f"{cache.folder}: its split 'train' is empty: there is nothing to train on; prepare the dataset with one, "
            "and cache it"
        )
    return splits


def header_of_distillation(run: Run, teacher: Base, cache: Cache, inputs: Mapping[str, str] | None = None) -> RunHeader:
    """Return what run.json will say; `inputs` are hashes of what is read beside the teacher and the cache.

    Raises MismatchError unless the cache was made with the teacher, for the pictures it makes, and a resumed run is
    still the same.
    """
    identity: dict[str, str] = {part: teacher.identity_of(part) for part in teacher.family.parts}
    identity |= {"vae": teacher.latents_identity}
    cache.require_identity(identity, teacher.name)
    if teacher.spec is not None:
        require_equal(teacher.spec, cache.header.spec, f"base {teacher.name}", f"cache {cache.folder}")
    about = cache.header
    read = {"cache": sha256_file(cache.folder / "cache.json")} | identity | dict(inputs or {})
    return run_header(
        run, spec=about.spec, anchor=about.anchor, clip_skip=about.clip_skip, identity=identity, inputs=read
    )


def header_of_base(header: RunHeader, teacher: Base, architecture: Architecture) -> LoraHeader:
    """Return what a base says that was made of a teacher in a run."""
    before = read_model_header(teacher.source.path) or LoraHeader()
    return replace(
        before,
        spec=header.spec,
        anchor=header.anchor,
        clip_skip=header.clip_skip,
        record=header.record,
        architecture=architecture,
        prediction=prediction_of(teacher.source.scheduler_config),
    )


def guidance_of(stated: float | None, base: Base) -> float:
    """Return the guidance at which a base is drawn: as stated, else what it or its family finds good."""
    header = read_model_header(base.source.path)
    own = header.drawing.guidance if header else None
    return stated or own or base.family.guidance


def over_processes(accelerator: Accelerator, sums: Tensor) -> Sequence[float]:
    """Return sums added up over all processes."""
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, reduction="sum")
    return [float(value) for value in sums]


def make_missing(
    wanted: Mapping[Path, CachedExample],
    make: Callable[[Path, CachedExample], None],
    accelerator: Accelerator,
    doing: str,
    unit: str,
) -> None:
    """Make the files of clips that are not there yet, by path; several processes share the work."""
    missing = [(path, example) for path, example in wanted.items() if not path.exists()]
    accelerator.wait_for_everyone()
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    with progress(len(mine), doing, unit) as ticker:
        for path, example in mine:
            make(path, example)
            ticker.advance()
    accelerator.wait_for_everyone()


def write_card(folder: Path, header: RunHeader, about: Sequence[str]) -> None:
    """Write what a run made, how it is used and what it came to."""
    shown = {
        name: " -> ".join(map(str, each)) if isinstance(each, list) else each for name, each in header.results.items()
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in shown.items())
    table = [f"| result | |\n|---|---|\n{rows}"] if rows else []
    write_text(
        folder / "README.md", "\n\n".join([f"# {folder.name}", *about, *table, f"![losses]({CURVES_NAME})"]) + "\n"
    )

"""The stage `compare`: two evaluations side by side, or the checkpoints of a run over their steps."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import Skipped, StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.differences import Difference, compare_evaluations, difference_table, mismatches
from sdxl_mel.files.evaluation import FILE_NAME, Evaluation, failed_thresholds, read_evaluation

EXAMPLES = """\
  sdxl-mel compare base/metrics.json tuned/metrics.json --out comparison
  sdxl-mel compare --runs run/checkpoints/* --out sweep
  sdxl-mel compare base tuned --fail-under clap_mean=0.30"""


class Config(StageConfig):
    """Compare evaluations: A against B with paired intervals, or every checkpoint of a run over its steps."""

    evaluations: Annotated[tuple[Path, ...], Show.POSITIONAL] = ()
    """metrics.json files, or the folders that hold them: the first is what the others are compared with"""
    runs: tuple[Path, ...] = ()
    """evaluated checkpoints instead: step-000500.safetensors stands for step-000500/metrics.json beside it"""
    out: Path | None = None
    """folder for comparison.txt and report.html"""
    fail_under: dict[str, float] = {}
    """METRIC=VALUE: exit with 1 if the last evaluation's metric is below it or absent"""
    fail_over: dict[str, float] = {}
    """METRIC=VALUE: exit with 1 if the last evaluation's metric is above it or absent"""

    @model_validator(mode="after")
    def _something_to_compare(self) -> "Config":
        if self.runs and self.evaluations:
            raise ValueError("give evaluations or --runs, not both")
        if not self.runs and len(self.evaluations) < 2:
            raise ValueError("give two evaluations, A/metrics.json B/metrics.json, or --runs with checkpoints")
        return self


class Named:
    """An evaluation and what it is called in tables; `step` is the number at the end of a checkpoint's name."""

    def __init__(self, name: str, evaluation: Evaluation) -> None:
        self.name, self.evaluation = name, evaluation
        numbers = re.findall(r"\d+", name)
        self.step = int(numbers[-1]) if numbers else None


class Report(StageReport):
    """The table, and which thresholds the last evaluation fails."""

    table: str
    failures: tuple[str, ...] = ()
    out: Path | None = None

    def summary(self) -> str:
        """Return the table and where the report is."""
        lines = [self.table, *(f"FAILED: {failure}" for failure in self.failures)]
        return "\n".join([*lines, f"written: {self.out}"] if self.out else lines)

    @property
    def exit_code(self) -> int:
        """Return 1 when a threshold is failed, else 3 when evaluations were left out, else 0."""
        return 1 if self.failures else super().exit_code


def run(config: Config) -> Report:
    """Compare, and write the report if asked."""
    from sdxl_mel.evaluation.compare_page import write_page
    from sdxl_mel.files.atomic import write_text

    evaluations, skipped = _sweep(config.runs) if config.runs else (_given(config.evaluations), [])
    first, *others = evaluations
    compared: list[tuple[Named, list[Difference]]] = [
        (other, compare_evaluations(first.evaluation, other.evaluation)) for other in others
    ]
    lines = [difference_table(first.name, other.name, differences) for other, differences in compared]
    for other in others:
        lines += [f"note: {each}" for each in mismatches(first.evaluation, other.evaluation)]
    table = "\n\n".join(lines)
    if config.out is not None:
        write_text(config.out / "comparison.txt", table + "\n")
        write_page(config.out / "report.html", evaluations, compared, over_steps=bool(config.runs))
    failures = failed_thresholds(evaluations[-1].evaluation, config.fail_under, config.fail_over)
    return Report(table=table, failures=tuple(failures), out=config.out, skipped=tuple(skipped))


def _given(paths: tuple[Path, ...]) -> list[Named]:
    names = [_name(path) for path in paths]
    unique = len(set(names)) == len(names)
    return [Named(name if unique else str(path), read_evaluation(path)) for name, path in zip(names, paths)]


def _sweep(paths: tuple[Path, ...]) -> tuple[list[Named], list[Skipped]]:
    """Return the evaluations of checkpoints by step; a checkpoint that was not evaluated is noted."""
    folders = dict.fromkeys(path.with_suffix("") if path.suffix == ".safetensors" else path for path in paths)
    found, skipped = [], []
    for folder in folders:
        if (folder / FILE_NAME).is_file() or folder.name == FILE_NAME:
            found.append(Named(_name(folder), read_evaluation(folder)))
        else:
            why = f"not evaluated; generate with it, then sdxl-mel evaluate --generated ... --out {folder}"
            skipped.append(Skipped(what=str(folder), why=why))
    if len(found) < 2:
        raise InputError(
            f"{len(found)} of {len(folders)} checkpoints have an evaluation, 2 are needed: write each one's with "
            "sdxl-mel evaluate --out run/checkpoints/step-000500, beside the checkpoint of that name"
        )
    return sorted(found, key=lambda one: (one.step is None, one.step or 0, one.name)), skipped


def _name(path: Path) -> str:
    return path.parent.name or path.stem if path.name == FILE_NAME else path.name

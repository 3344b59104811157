"""The stage `compare`: two evaluations side by side, or the checkpoints of a run over their steps."""

from pathlib import Path
from typing import Annotated

from pydantic import model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.files.evaluation import failed_thresholds

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


class Report(StageReport):
    """The table, and where it was written; the thresholds are those of the last evaluation."""

    table: str
    out: Path | None = None

    def summary(self) -> str:
        """Return the table and where the report is."""
        lines = [self.table, *(f"FAILED: {failure}" for failure in self.failures)]
        return "\n".join([*lines, f"written: {self.out}"] if self.out else lines)


def run(config: Config) -> Report:
    """Compare, and write the report if asked."""
    from sdxl_mel.evaluation.compare import compare, compare_checkpoints, write_comparison

    comparison = compare_checkpoints(config.runs) if config.runs else compare(config.evaluations)
    if config.out is not None:
        write_comparison(config.out, comparison)
    failures = failed_thresholds(comparison.evaluations[-1].evaluation, config.fail_under, config.fail_over)
    return Report(table=comparison.text(), failures=tuple(failures), out=config.out, skipped=comparison.skipped)

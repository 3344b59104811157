"""The stage `evaluate`: how good generated clips are, in numbers with intervals."""

from pathlib import Path
from typing import Annotated

from pydantic import model_validator

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.files.evaluation import Evaluation, failed_thresholds
from sdxl_mel.options import Method

EXAMPLES = """\
  sdxl-mel evaluate --generated out/ --reference data/mine --training data/mine --out eval
  sdxl-mel evaluate --generated out/ --reference real/ --prompts prompts.csv --clap clap-music --out eval
  sdxl-mel evaluate --generated out/ --reference real/ --out eval --fail-under clap_mean=0.30 --fail-over fad=1.0"""

DEFAULT_EMBEDDERS = ("clap", "musicnn-msd", "mel", "tagbridge")


class Config(StageConfig):
    """Measure generated clips against reference clips: fidelity, diversity, prompt adherence, novelty, signal."""

    generated: Path
    """folder of generated sounds or of our pictures (which are inverted)"""
    reference: Path
    """folder of real clips to compare with; of a prepared dataset its test split is taken"""
    training: Path | None = None
    """folder of the clips that were trained on, to find copies; of a prepared dataset its train split is taken"""
    against: Annotated[Path | None, Show.ADVANCED] = None
    """folder of what another model made of the same prompts and seeds: how much nearer is FAD, pair by pair"""
    prompts: Path | None = None
    """CSV or JSON lines with the columns file and prompt; without it the records inside the generated files count"""
    out: Path
    """folder for metrics.json, clips.csv, metrics.txt and report.html"""
    embedder: tuple[str, ...] = ()
    """clap, laion-clap, musicnn-msd, musicnn-mtt, tagbridge, mel; the first one there is names the plain metrics
    [all but laion-clap and musicnn-mtt]"""
    clap: str | None = None
    """CLAP as a transformers folder or hub id (convert LAION's .pt once with `sdxl-mel convert-clap`)"""
    laion_clap: Annotated[Path | None, Show.ADVANCED] = None
    """LAION's .pt checkpoint for the embedder laion-clap"""
    fail_under: dict[str, float] = {}
    """METRIC=VALUE: exit with 1 if a metric is below it or absent"""
    fail_over: dict[str, float] = {}
    """METRIC=VALUE: exit with 1 if a metric is above it or absent"""
    inversion: Annotated[Method, Show.ADVANCED] = "best"
    """how pictures become sound"""
    format: Annotated[str | None, Show.ADVANCED] = None
    """format of pictures that do not say how they were made"""
    anchor: Annotated[str, Show.ADVANCED] = "mel spectrogram"
    """words at the start of a prompt that describe the picture and not the music; they are not scored"""
    cache: Annotated[Path | None, Show.ADVANCED] = None
    """folder where embeddings are kept by content [OUT/cache]"""
    instruments: Annotated[bool, Show.ADVANCED] = False
    """for tiles of the demo corpus: were the instruments of the prompt found"""
    report: bool = True
    """write report.html"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of the resampling"""
    device: Annotated[str, Show.ADVANCED] = "cpu"
    """where CLAP runs: cpu, cuda"""

    @model_validator(mode="after")
    def _known_embedders(self) -> "Config":
        from sdxl_mel.metrics.embedders.registry import NAMES

        for name in self.embedder:
            if name not in NAMES:
                raise ValueError(f"unknown embedder {name!r}; known: {', '.join(NAMES)}")
        return self


class Report(StageReport):
    """The evaluation, and which thresholds it fails."""

    evaluation: Evaluation
    out: Path
    failures: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the table of metrics, warnings, and where the files are."""
        from sdxl_mel.evaluation.tables import metric_table

        lines = [metric_table(self.evaluation)]
        lines += [f"warning: {warning}" for warning in self.evaluation.warnings]
        lines += [f"FAILED: {failure}" for failure in self.failures]
        return "\n".join([*lines, f"written: {self.out}"])

    @property
    def exit_code(self) -> int:
        """Return 1 when a threshold is failed, else 3 when clips were left out, else 0."""
        return 1 if self.failures else super().exit_code


def run(config: Config) -> Report:
    """Evaluate, and write metrics.json, metrics.txt, clips.csv and report.html."""
    from sdxl_mel.evaluation.page import write_page
    from sdxl_mel.evaluation.run import judge
    from sdxl_mel.evaluation.tables import clip_table, metric_table
    from sdxl_mel.files.atomic import write_text
    from sdxl_mel.files.evaluation import FILE_NAME, write_evaluation

    if config.out.is_file():
        raise InputError(f"{config.out}: a file; --out is a folder")
    judgement = judge(config)
    evaluation = judgement.evaluation
    write_evaluation(config.out / FILE_NAME, evaluation)
    write_text(config.out / "metrics.txt", metric_table(evaluation) + "\n")
    write_text(config.out / "clips.csv", clip_table(evaluation))
    if config.report:
        write_page(config.out / "report.html", judgement)
    return Report(
        skipped=evaluation.left_out,
        evaluation=evaluation,
        out=config.out,
        failures=tuple(failed_thresholds(evaluation, config.fail_under, config.fail_over)),
    )

"""The stage `evaluate`: how good generated clips are, in numbers with intervals."""

from pathlib import Path
from typing import Annotated

import sdxl_mel
from sdxl_mel.arguments import Show
from sdxl_mel.config import UNRECORDED, StageConfig, StageReport
from sdxl_mel.errors import InputError
from sdxl_mel.evaluation.tables import metric_table
from sdxl_mel.files.evaluation import Evaluation, failed_thresholds
from sdxl_mel.metrics.options import DEFAULT_EMBEDDERS, EmbedderName
from sdxl_mel.options import DEFAULT_ANCHOR, Format, Method

EXAMPLES = """\
  sdxl-mel evaluate --generated out/ --reference data/mine --training data/mine --out eval
  sdxl-mel evaluate --generated out/ --reference real/ --prompts prompts.csv --clap clap-music --out eval
  sdxl-mel evaluate --generated out/ --reference real/ --out eval --fail-under clap_mean=0.30 --fail-over fad=1.0"""


class Config(StageConfig):
    """Measure generated clips against reference clips: fidelity, diversity, alignment, memorization, signal checks."""

    generated: Annotated[Path, UNRECORDED]
    """folder of generated sounds or of our pictures (which are inverted)"""
    reference: Annotated[Path, UNRECORDED]
    """folder of real clips to compare with; of a prepared dataset its test split is taken"""
    training: Annotated[Path | None, UNRECORDED] = None
    """folder of the clips that were trained on, to find copies; of a prepared dataset its train split is taken"""
    against: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """folder of another model's clips of the same prompts and seeds, for the change of FAD pair by pair"""
    prompts: Annotated[Path | None, UNRECORDED] = None
    """CSV or JSON lines with the columns file and prompt [the records inside the generated files]"""
    out: Annotated[Path, UNRECORDED]
    """folder for metrics.json, clips.csv, metrics.txt and report.html"""
    embedder: tuple[EmbedderName, ...] = DEFAULT_EMBEDDERS
    """embedders to use; the first of them that can be opened names the plain metrics"""
    clap: Annotated[str | None, UNRECORDED] = None
    """CLAP as a transformers folder or hub id (convert LAION's .pt once with `sdxl-mel convert-clap`)"""
    laion_clap: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """LAION's .pt checkpoint for the embedder laion-clap"""
    fail_under: Annotated[dict[str, float], UNRECORDED] = {}
    """METRIC=VALUE: exit with 1 if a metric is below it or absent"""
    fail_over: Annotated[dict[str, float], UNRECORDED] = {}
    """METRIC=VALUE: exit with 1 if a metric is above it or absent"""
    inversion: Annotated[Method, Show.ADVANCED] = "best"
    """how pictures become sound"""
    format: Annotated[Format | None, Show.ADVANCED] = None
    """format of pictures that do not say how they were made"""
    anchor: Annotated[str, Show.ADVANCED] = DEFAULT_ANCHOR
    """words at the start of a prompt that describe the picture and not the music; they are not scored"""
    cache: Annotated[Path | None, Show.ADVANCED, UNRECORDED] = None
    """folder where embeddings are kept by content [OUT/cache]"""
    instruments: Annotated[bool, Show.ADVANCED] = False
    """measure whether the instruments of the prompt were found (tiles of the demo corpus only)"""
    report: Annotated[bool, UNRECORDED] = True
    """write report.html"""
    seed: Annotated[int, Show.ADVANCED] = 0
    """seed of the resampling"""
    device: Annotated[str, Show.ADVANCED, UNRECORDED] = "cpu"
    """device of CLAP: cpu, cuda"""


class Report(StageReport):
    """The evaluation, and where it was written."""

    evaluation: Evaluation
    out: Path

    def summary(self) -> str:
        """Return the table of metrics, warnings, and where the files are."""
        lines = [metric_table(self.evaluation)]
        lines += [f"warning: {warning}" for warning in self.evaluation.warnings]
        lines += [f"FAILED: {failure}" for failure in self.failures]
        return "\n".join([*lines, f"written: {self.out}"])


def run(config: Config) -> Report:
    """Evaluate, and write metrics.json, metrics.txt, clips.csv and report.html."""
    from sdxl_mel.evaluation.run import evaluate, write_result

    if config.out.is_file():
        raise InputError(f"{config.out}: a file; --out is a folder")
    result = evaluate(
        config.generated,
        config.reference,
        training=config.training,
        against=config.against,
        prompts=config.prompts,
        anchor=config.anchor,
        embedders=config.embedder,
        clap=config.clap,
        laion_clap=config.laion_clap,
        device=config.device,
        inversion=config.inversion,
        stated=sdxl_mel.named_spec(config.format) if config.format else None,
        with_instruments=config.instruments,
        seed=config.seed,
        cache=config.cache or config.out / "cache",
        leave_out=config.out,
        settings=config.recorded(),
    )
    write_result(config.out, result, with_page=config.report)
    return Report(
        skipped=result.evaluation.left_out,
        evaluation=result.evaluation,
        out=config.out,
        failures=tuple(failed_thresholds(result.evaluation, config.fail_under, config.fail_over)),
    )

"""The stage `demo`: the whole job on rendered music, by the public commands alone."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sdxl_mel.arguments import Show
from sdxl_mel.config import StageConfig, StageReport

EXAMPLES = """\
  sdxl-mel demo
  sdxl-mel demo --out /tmp/demo --minutes 5"""


class Config(StageConfig):
    """Teach the mini base instruments it has never heard, make music with them, and measure both.

    Interrupted, the same command continues.
    """

    out: Path = Path("demo")
    """folder of everything; report.html is in it"""
    minutes: float = Field(10.0, gt=0, le=600)
    """how much to do, in minutes of two cores"""
    seed: Annotated[int, Show.ADVANCED] = Field(0, ge=0)
    """of everything that is drawn"""


class Report(StageReport):
    """Where the report is, and its head line."""

    page: Path
    findings: tuple[str, ...]

    def summary(self) -> str:
        """Return what was found and where to read more."""
        return "\n".join(["", *self.findings, f"open {self.page}"])


def run(config: Config) -> Report:
    """Run every step that is not done yet, and write the report."""
    from sdxl_mel.demo.findings import read_findings
    from sdxl_mel.demo.page import write_page
    from sdxl_mel.demo.plan import LINES, PREPARE, Size, quick_dtype, step_of
    from sdxl_mel.demo.prompts import SONG, write_inputs
    from sdxl_mel.demo.steps import config_path, run_steps

    folder, size = config.out, Size.of(config.minutes)
    values = {
        "seed": str(config.seed),
        "tracks": str(size.tracks),
        "steps": str(size.steps),
        "song": SONG,
        "dtype": quick_dtype(),
        "config": str(config_path("mini")),
    }
    count = 1 + len(LINES)
    done = list(run_steps([step_of(PREPARE, folder, values)], folder, first=1, count=count))
    write_inputs(folder, size.known, config.seed)
    done += run_steps([step_of(line, folder, values) for line in LINES], folder, first=2, count=count)
    findings = read_findings(folder)
    page = folder / "report.html"
    write_page(page, folder, done, findings)
    return Report(page=page, findings=findings.lines())

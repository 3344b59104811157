"""`sdxl-mel demo`: the whole job on rendered music, by the public commands alone."""

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
    known: Annotated[int | None, Show.ADVANCED] = Field(None, ge=1)
    """prompts for instruments that the base knows, none = 6.4 a minute; more of them say closer what is forgotten"""
    seed: Annotated[int, Show.ADVANCED] = Field(0, ge=0)
    """seed of everything that is drawn"""


class Report(StageReport):
    """Where the report is, and its head line."""

    page: Path
    findings: tuple[str, ...]

    def summary(self) -> str:
        """Return what was found and where to read more."""
        return "\n".join(["", *self.findings, f"open {self.page}"])


def run(config: Config) -> Report:
    """Run every step that is not done yet, and write the report."""
    from sdxl_mel.demo.run import run_demo

    page, findings = run_demo(config.out, config.minutes, config.seed, config.known)
    return Report(page=page, findings=findings.lines())

"""The demo from its first command to its report."""

from pathlib import Path

from sdxl_mel.demo.findings import Findings, read_findings
from sdxl_mel.demo.page import write_page
from sdxl_mel.demo.plan import LINES, PREPARE, Size, quick_dtype, step_of
from sdxl_mel.demo.prompts import SONG, write_inputs
from sdxl_mel.demo.steps import config_path, run_steps


def run_demo(folder: Path, minutes: float, seed: int) -> tuple[Path, Findings]:
    """Run every step that is not done yet in `folder`; return the report that was written, and what was found."""
    size = Size.of(minutes)
    values = {
        "seed": str(seed),
        "tracks": str(size.tracks),
        "steps": str(size.steps),
        "song": SONG,
        "dtype": quick_dtype(),
        "config": str(config_path("mini")),
    }
    count = 1 + len(LINES)
    done = list(run_steps([step_of(PREPARE, folder, values)], folder, first=1, count=count))
    write_inputs(folder, size.known, seed)
    done += run_steps([step_of(line, folder, values) for line in LINES], folder, first=2, count=count)
    findings = read_findings(folder)
    page = folder / "report.html"
    write_page(page, folder, done, findings)
    return page, findings

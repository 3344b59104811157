"""run.json: what a training run is, was given and came to."""

from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.files.atomic import write_json, write_text
from sdxl_mel.files.header import Frozen, read_versioned
from sdxl_mel.files.run import CONFIG_NAME, HEADER_NAME, to_toml
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

FORMAT = 1


class RunHeader(Frozen):
    """What `run.json` says; `changes` lists what each resume altered, `results` is empty until the run has ended."""

    format: int = FORMAT
    spec: MelSpec
    anchor: str
    clip_skip: int
    identity: dict[str, str]
    settings: dict[str, JsonValue]
    changes: tuple[dict[str, JsonValue], ...] = ()
    results: dict[str, JsonValue] = {}
    record: Record


def write_run(folder: Path, header: RunHeader) -> None:
    """Write what a run is, and its settings as a config that starts it again."""
    write_text(folder / CONFIG_NAME, to_toml(header.settings))
    write_json(folder / HEADER_NAME, header.model_dump(mode="json"))


def read_run(folder: Path) -> RunHeader:
    """Read `run.json`. Raises InputError where there is none and FormatError where it is damaged."""
    missing = "no training run; make one with train_lora.py"
    path = folder / HEADER_NAME
    return read_versioned(path, RunHeader, newest=FORMAT, what="run", missing=missing, again="train it again")

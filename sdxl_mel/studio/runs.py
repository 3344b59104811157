"""Training runs as pages show them: what each is, where it stands, its checkpoints and its samples."""

from pathlib import Path
from typing import Any

from sdxl_mel.errors import InputError
from sdxl_mel.files.run import LORA_NAME, read_metrics
from sdxl_mel.files.run_header import read_run

SAMPLES = "samples"


def overview(folder: Path, running: bool) -> dict[str, Any]:
    """Return what a run is and where it stands. Raises InputError or FormatError for a folder that is none."""
    header = read_run(folder)
    rows = read_metrics(folder)
    step, steps = (rows[-1]["step"] if rows else 0), header.settings.get("steps")
    ended = bool(header.results) and step == header.results.get("steps")
    return {
        "state": "running" if running else "ended" if ended else "stopped",
        "step": step,
        "steps": steps,
        "settings": header.settings,
        "results": header.results,
        "changes": list(header.changes),
        "spec": header.spec.model_dump(mode="json"),
        "anchor": header.anchor,
        "lora": (folder / LORA_NAME).is_file(),
    }


def metrics(folder: Path, after: int) -> list[dict[str, Any]]:
    """Return the rows of the curves that come after a step; -1 for all."""
    return [row for row in read_metrics(folder) if row.get("step", 0) > after]


def samples(folder: Path) -> list[dict[str, Any]]:
    """Return the pictures and sounds that were drawn on the way, step by step."""
    found = []
    for place in sorted((folder / SAMPLES).glob("step-*")):
        names = sorted(path.stem for path in place.glob("*.png"))
        files = [
            {
                "name": name,
                "picture": f"{place.name}/{name}.png",
                "sound": f"{place.name}/{name}.wav" if (place / f"{name}.wav").is_file() else None,
            }
            for name in names
        ]
        found.append({"step": int(place.name.removeprefix("step-")), "results": files})
    return found


def sample_file(folder: Path, step: str, name: str) -> Path:
    """Return the file of a sample. Raises InputError for a name that is none of them."""
    known = {each[kind] for row in samples(folder) for each in row["results"] for kind in ("picture", "sound")}
    wanted = f"{step}/{name}"
    if wanted not in known:
        raise InputError(f"{wanted[:80]}: no sample of this run")
    return folder / SAMPLES / wanted

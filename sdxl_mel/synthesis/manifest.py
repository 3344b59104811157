"""The list of results in a folder: manifest.json, and a playlist for any player."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sdxl_mel.files.atomic import write_json, write_text

MANIFEST = "manifest.json"
PLAYLIST = "playlist.m3u8"


class Entry(BaseModel):
    """One finished result: its files, what was asked for, and what was measured."""

    model_config = ConfigDict(frozen=True)

    picture: str
    sound: str | None
    prompt: str
    negative_prompt: str
    seed: int
    seconds: float
    loop: bool
    candidate_seed: int
    seam_scores: tuple[float | None, ...] = ()
    junction: float | None = None
    inconsistency: tuple[float, ...] = ()
    alignment: tuple[float, ...] = ()


def write_manifest(folder: Path, entries: Sequence[Entry]) -> None:
    """Write both lists; there is no playlist where there are no sounds."""
    write_json(folder / MANIFEST, {"results": [entry.model_dump(mode="json") for entry in entries]})
    lines = [
        f"#EXTINF:{entry.seconds:.3f},{' '.join(entry.prompt.split())}\n{entry.sound}"
        for entry in entries
        if entry.sound
    ]
    if lines:
        write_text(folder / PLAYLIST, "\n".join(["#EXTM3U", *lines, ""]))


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Return the results of an earlier run by name; none where the list is missing or was made by another version."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["results"]
        entries = [Entry.model_validate(entry) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {Path(entry.picture).stem: entry for entry in entries}

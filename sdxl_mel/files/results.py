"""A folder of results is what its list says: manifest.json, and a playlist for any player.

Files of an earlier command that lie beside the results are not in the list, and who reads the folder leaves them out.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sdxl_mel.files.atomic import write_json, write_text
from sdxl_mel.progress import log

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

    @property
    def files(self) -> set[str]:
        """Return the names of its files."""
        return {self.picture} | ({self.sound} if self.sound else set())


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


def listed(paths: Sequence[Path]) -> list[Path]:
    """Return the files without those that lie in a folder of results and are not in its list, which are logged."""
    lists: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:
        lists[folder] = {name for entry in read_manifest(folder).values() for name in entry.files}
    kept = [path for path in paths if not lists[path.parent] or path.name in lists[path.parent]]
    for folder in lists:
        left_out = [path.name for path in paths if path.parent == folder and path not in kept]
        if left_out:
            shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
            log(f"{folder}: left out, not in its {MANIFEST}: {shown}")
    return kept

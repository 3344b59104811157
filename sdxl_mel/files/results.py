"""A folder of results is what its list says: manifest.json, and a playlist for any player.

Files of an earlier command that lie beside the results are not in the list, and who reads the folder leaves them out.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sdxl_mel.config import Skipped
from sdxl_mel.files.atomic import write_json, write_text
from sdxl_mel.files.header import parse_json
from sdxl_mel.progress import log

MANIFEST = "manifest.json"
PLAYLIST = "playlist.m3u8"


class Entry(BaseModel):
    """One finished result: its files, what was asked for, and what was measured."""

    model_config = ConfigDict(frozen=True, defer_build=True)

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
    return _read(folder) or {}


def lost_results(folder: Path, suffixes: Collection[str]) -> list[Skipped]:
    """Return the listed results of which no file with one of these extensions is there, or the list if it is damaged.

    A manifest.json that lists no results is another program's.
    """
    entries = _read(folder)
    if entries is None:
        return [Skipped(what=MANIFEST, why="not a list of results that can be read; all files of the folder are taken")]
    lost = []
    for entry in entries.values():
        files = sorted(file for file in entry.files if Path(file).suffix.lower() in suffixes)
        if files and not any((folder / file).is_file() for file in files):
            lost.append(Skipped(what=files[0], why=f"listed in {MANIFEST}, and not there any more"))
    return lost


def _read(folder: Path) -> dict[str, Entry] | None:
    """Return the results by name, None where the list cannot be read."""
    try:
        content = parse_json((folder / MANIFEST).read_bytes())
        rows = content.get("results", []) if isinstance(content, dict) else []
        entries = [Entry.model_validate(entry) for entry in rows]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError):
        return None
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

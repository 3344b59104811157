"""Which prompt each clip was made for: from a manifest, or from the record inside the clip; never by listing order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdxl_mel.captions.anchor import strip_anchor
from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError, SdxlMelError
from sdxl_mel.evaluation.clips import Clip
from sdxl_mel.files.audio import read_provenance
from sdxl_mel.files.finding import composed
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.files.tables import open_table
from sdxl_mel.progress import log

MANIFESTS = ("manifest.json", "prompts.csv", "prompts.jsonl", "metadata.jsonl", "metadata.csv")
"""Looked for in the folder itself when none is given."""
FILE_KEYS = ("file", "file_name", "filename", "path", "sound", "picture")
PROMPT_KEYS = ("prompt", "caption", "captions", "text")


def pair_prompts(
    clips: Iterable[Clip], folder: Path, manifest: Path | None, anchor: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Return the prompt of each clip by name, without the anchor, and the rows of the manifest that are of no use.

    Raises InputError when a given manifest matches nothing at all.
    """
    clips = list(clips)
    given = manifest or next((folder / name for name in MANIFESTS if _is_manifest(folder / name)), None)
    if given is None:
        recorded = ((clip.name, recorded_prompt(clip)) for clip in clips)
        return {name: strip_anchor(prompt, anchor) for name, prompt in recorded if prompt}, []
    rows, unmatched = read_manifest(given)
    known = _lookup(clip.name for clip in clips)
    prompts: dict[str, str] = {}
    for file, prompt in rows:
        path = Path(composed(file.replace("\\", "/")))
        name = known.get(path.as_posix()) or known.get(path.name) or known.get(path.stem)
        if name:
            prompts[name] = strip_anchor(prompt, anchor)
        else:
            unmatched.append(Skipped(what=f"{given.name}: {file}", why="no such clip in the generated folder"))
    if not prompts and manifest is not None:
        raise InputError(
            f"{manifest}: none of its {len(rows)} rows names a clip of {folder} (first: {rows[0][0]}); "
            "its column `file` must hold their names"
        )
    return prompts, unmatched


def read_manifest(path: Path) -> tuple[list[tuple[str, str]], list[Skipped]]:
    """Return (file, prompt) pairs and the rows that are none, of a CSV or JSON-lines file with the columns file and
    prompt, or of the manifest.json that `generate` writes. Raises FormatError where there is no pair."""
    bad: list[Skipped] = []
    pairs: list[tuple[str, str]] = []
    for row in open_table(path).rows(bad):
        file, prompt = _first(row.cells, FILE_KEYS), _first(row.cells, PROMPT_KEYS)
        if file and prompt:
            pairs.append((file, prompt))
        else:
            bad.append(Skipped(what=row.where, why=f"has no {'prompt' if file else 'file'}"))
    if not pairs:
        first = f"{bad[0].what}: {bad[0].why}" if bad else "no rows"
        raise FormatError(f"{path}: {first}; expected the columns file and prompt")
    return pairs, bad


def recorded_prompt(clip: Clip) -> str | None:
    """Return the prompt in the record that a generated picture or sound carries, if it has one."""
    try:
        if clip.is_picture:
            record = read_spectrogram(clip.path).record
            settings: Mapping[str, Any] = record.settings if record else {}
        else:
            settings = read_provenance(clip.path).get("record", {}).get("settings", {})
    except SdxlMelError:
        return None  # What cannot be read is listed when it is decoded.
    prompt = settings.get("prompt") if isinstance(settings, Mapping) else None
    return prompt if isinstance(prompt, str) and prompt.strip() else None


def _is_manifest(path: Path) -> bool:
    """Say whether a file lists prompts; another program's file of the same name does not."""
    if not path.is_file():
        return False
    try:
        return bool(read_manifest(path)[0])
    except InputError as error:
        log(f"{error}; the prompts in the files themselves are taken instead")
        return False


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = row.get(key)
        if isinstance(value, list):
            value = value[0] if value else ""
        if value:
            return str(value).strip()
    return ""


def _lookup(names: Iterable[str]) -> dict[str, str]:
    """Return every way in which a manifest may name a clip; a short name only where it is unique."""
    ways: dict[str, set[str]] = defaultdict(set)
    exact: dict[str, str] = {}
    for name in names:
        path = Path(composed(name))
        exact[path.as_posix()] = name
        for way in (path.as_posix(), path.name, path.stem):
            ways[way].add(name)
    return {way: next(iter(several)) for way, several in ways.items() if len(several) == 1} | exact

"""Which prompt each clip was made for: from a manifest, or from the record inside the clip; never by listing order."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdxl_mel.captions.anchor import strip_anchor
from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError, SdxlMelError
from sdxl_mel.evaluation.clips import Clip
from sdxl_mel.files.audio import read_provenance
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.progress import log

MANIFESTS = ("manifest.json", "prompts.csv", "prompts.jsonl", "metadata.jsonl", "metadata.csv")
"""Looked for in the folder itself when none is given."""
FILE_KEYS = ("file", "file_name", "filename", "path", "sound", "picture")
PROMPT_KEYS = ("prompt", "caption", "captions", "text")


def pair_prompts(
    clips: Iterable[Clip], folder: Path, manifest: Path | None, anchor: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Return the prompt of each clip by name, without the anchor, and the rows of the manifest that match no clip.

    Raises InputError when a given manifest matches nothing at all.
    """
    clips = list(clips)
    given = manifest or next((folder / name for name in MANIFESTS if _is_manifest(folder / name)), None)
    if given is None:
        recorded = ((clip.name, recorded_prompt(clip)) for clip in clips)
        return {name: strip_anchor(prompt, anchor) for name, prompt in recorded if prompt}, []
    rows = read_manifest(given)
    known = _lookup(clip.name for clip in clips)
    prompts: dict[str, str] = {}
    unmatched: list[Skipped] = []
    for file, prompt in rows:
        name = known.get(file) or known.get(Path(file).name) or known.get(Path(file).stem)
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


def read_manifest(path: Path) -> list[tuple[str, str]]:
    """Return (file, prompt) pairs of a CSV or JSON-lines file with the columns file and prompt, or of the
    manifest.json that `generate` writes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read this list of prompts ({error})") from error
    rows = list(csv.DictReader(text.splitlines())) if path.suffix.lower() == ".csv" else list(_json_rows(path, text))
    pairs = [(_first(row, FILE_KEYS), _first(row, PROMPT_KEYS)) for row in rows]
    for number, (file, prompt) in enumerate(pairs, start=1):
        if not file or not prompt:
            raise FormatError(
                f"{path}: row {number} has no {'prompt' if file else 'file'}; expected the columns file and prompt"
            )
    if not pairs:
        raise FormatError(f"{path}: no rows; expected the columns file and prompt")
    return pairs


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
    prompt = settings.get("prompt")
    return prompt if isinstance(prompt, str) and prompt.strip() else None


def _is_manifest(path: Path) -> bool:
    """Say whether a file lists prompts; another program's file of the same name does not."""
    if not path.is_file():
        return False
    try:
        return bool(read_manifest(path))
    except InputError as error:
        log(f"{error}; the prompts in the files themselves are taken instead")
        return False


def _json_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    whole = path.suffix.lower() == ".json"
    for number, line in enumerate([text] if whole else text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{path}:{number}: not JSON ({error})") from error
        if whole and isinstance(row, dict) and isinstance(row.get("results"), list):
            yield from (each for each in row["results"] if isinstance(each, dict))
            continue
        if not isinstance(row, dict):
            raise FormatError(f"{path}:{number}: expected an object with file and prompt")
        yield row


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
    for name in names:
        for way in (name, Path(name).name, Path(name).stem):
            ways[way].add(name)
    exact = {name: name for several in ways.values() for name in several}
    return {way: next(iter(several)) for way, several in ways.items() if len(several) == 1} | exact

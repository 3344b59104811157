"""Any artefact as nested values: its kind, its size, and the spec and record it carries.

It reads the embedded JSON of every kind alike, so a new field of an artefact is shown without a change here.
"""

from collections import Counter
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES, sound_description
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.spectrogram import picture_description
from sdxl_mel.sound.melspec import MelSpec, name_of

HEADERS = {
    "run.json": "training run",
    "cache.json": "cache of latents and text embeddings",
    "trajectories.json": "trajectories of a teacher",
    "dataset.json": "prepared dataset",
    "metrics.json": "evaluation",
    "model_index.json": "model folder",
    "manifest.json": "folder of results",
}
"""The file that marks a folder as an artefact, and the kind of artefact."""
BESIDE = ("melspec.json", "record.json")
SPEC_NAMES = ("spec", "melspec")
CARRIED = "sdxl_mel.configs"
"""Whole files in the header of a single file (files.carried), of which the names are told."""

Description = dict[str, JsonValue]


def description(path: Path) -> Description:
    """Return what `path` is. Raises InputError for a missing file and for a kind that no stage writes."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    return {"file": path.name, **_as_mapping(named_specs(found))}


def named_specs(content: JsonValue) -> JsonValue:
    """Return nested values with `format`, the name of a known spec, beside every spec among them."""
    if isinstance(content, list):
        return [named_specs(item) for item in content]
    if not isinstance(content, dict):
        return content
    result: Description = {}
    for key, value in content.items():
        name = _known_name(value) if key in SPEC_NAMES else None
        result[key] = {"format": name, **_as_mapping(value)} if name else named_specs(value)
    return result


def _known_name(value: JsonValue) -> str | None:
    if not isinstance(value, dict) or not value.keys() <= MelSpec.model_fields.keys():
        return None
    try:
        return name_of(MelSpec.model_validate(value))
    except ValueError:
        return None


def _of_folder(path: Path) -> Description:
    for name, kind in HEADERS.items():
        if (path / name).is_file():
            beside = {Path(extra).stem: _json_file(path / extra) for extra in BESIDE if (path / extra).is_file()}
            return {"kind": kind, **_as_mapping(_json_file(path / name)), **beside}
    raise InputError(f"{path}: not a folder that the toolkit writes; expected one of {', '.join(HEADERS)} in it")


def _of_file(path: Path) -> Description:
    suffix = path.suffix.lower()
    if suffix == ".png":
        return picture_description(path)
    if suffix in AUDIO_SUFFIXES:
        return sound_description(path)
    if suffix == ".safetensors":
        return _of_tensors(path)
    if suffix == ".json":
        return {"kind": HEADERS.get(path.name, "JSON"), **_as_mapping(_json_file(path))}
    raise InputError(f"{path}: not a kind of file that the toolkit writes (.png, sound, .safetensors, .json, a folder)")


def _of_tensors(path: Path) -> Description:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118  (safe_open is no mapping)
            kinds = Counter(str(part.get_dtype()) for part in slices)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error})") from error
    parsed = {key: _parsed(value) for key, value in metadata.items()}
    if CARRIED in parsed:
        parsed[CARRIED] = list[JsonValue](sorted(_as_mapping(parsed[CARRIED])))
    return {"kind": "tensors", "tensors": sum(kinds.values()), "precision": dict(kinds), **parsed}


def _parsed(text: str) -> JsonValue:
    try:
        value: JsonValue = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def _json_file(path: Path) -> JsonValue:
    try:
        content: JsonValue = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable JSON file ({error})") from error
    return content


def _as_mapping(content: JsonValue) -> Description:
    return content if isinstance(content, dict) else {"content": content}

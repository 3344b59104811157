"""The JSON files of a diffusers folder that a single file carries in its header, where they are not the public ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdxl_mel.errors import FormatError
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tensors import TensorFile

KEY = "sdxl_mel.configs"
Files = Mapping[str, Mapping[str, Any]]
"""JSON files by name: unet/config.json, tokenizer/tokenizer.json."""


def carried_metadata(files: Files) -> dict[str, str]:
    """Return the pairs of a header that carries these files; `carried_files` is the inverse."""
    return {KEY: json.dumps(files, separators=(",", ":"), sort_keys=True)} if files else {}


def carried_files(path: Path) -> Files:
    """Return the files in the header of a single file, none for most. Raises FormatError for damaged ones."""
    try:
        files = parse_json(TensorFile(path).metadata.get(KEY, "{}"))
    except ValueError as error:
        raise FormatError(f"{path}: its {KEY} are damaged ({error}); write the file again") from error
    if not isinstance(files, dict) or not all(isinstance(content, dict) for content in files.values()):
        raise FormatError(f"{path}: its {KEY} are not JSON files by name; write the file again")
    return files


def files_in(files: Files, folder: str) -> Files:
    """Return those files that lie in one folder, by their names in it."""
    return {Path(name).name: content for name, content in files.items() if Path(name).parts[0] == folder}

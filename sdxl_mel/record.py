"""Provenance: the record of what made a file, carried inside every artefact.

A record holds no clock and no path of a machine, so the same command makes the same bytes.
"""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from sdxl_mel import __version__
from sdxl_mel.errors import InputError


class Record(BaseModel):
    """What made a file: the stage, its settings, and the SHA-256 of everything it read."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    stage: str
    settings: dict[str, JsonValue] = {}
    inputs: dict[str, str] = {}
    toolkit: str = f"sdxl-mel {__version__}"


def sha256_bytes(content: bytes | memoryview) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, read in pieces. Raises InputError for none to read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error

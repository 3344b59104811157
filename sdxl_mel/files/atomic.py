"""Write to a temporary name and rename, so that a killed stage leaves nothing half-written behind."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from sdxl_mel.errors import ResourceError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if not.

    Raises ResourceError when the disk is full or the folder cannot be written.
    """
    with clear_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` if the block succeeds, delete it if not.

    `path` must not exist or must be an empty folder.
    """
    with clear_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if path.is_dir():
                path.rmdir()
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def require_writable(path: Path) -> None:
    """Raise ResourceError where `path` could not be written, before long work; nothing is made."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ResourceError(f"{path}: cannot be written ({there} is no folder to write in); choose another --out")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8 with Unix line ends, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: JsonValue) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def clear_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into ResourceError."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
                raise ResourceError(
                    f"{path}: the disk is full ({free / 1e6:.0f} MB free); free some space and run it again"
                ) from error
            case errno.EACCES | errno.EPERM | errno.EROFS | errno.ENOTDIR | errno.EEXIST:
                raise ResourceError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
            case _:
                raise

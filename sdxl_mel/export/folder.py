"""A folder of files that are named by what is in them, so that a browser keeps them for good; large ones in parts."""

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.export.manifest import MANIFEST, File, Manifest, read_manifest
from sdxl_mel.files.atomic import require_writable, write_bytes, write_text
from sdxl_mel.record import sha256_bytes

HASH_DIGITS = 16
PACKING_LEVEL = 6
HASHED = re.compile(rf"(?:[\w-]+/)?[\w-][\w.-]*\.[0-9a-f]{{{HASH_DIGITS}}}\.\w+")
"""A file's name with its hash, in the text of a page or a manifest."""


@dataclass
class HashedFolder:
    """Writes files under names with their hashes; none is larger than `part_bytes`."""

    path: Path
    part_bytes: int
    written: set[str] = field(default_factory=set)

    def write(self, name: str, content: bytes) -> str:
        """Write a file whole and return its name with the hash in it: app.js becomes app.HASH.js."""
        hashed = hashed_name(name, content)
        self._put(hashed, content)
        return hashed

    def write_parts(self, name: str, content: bytes, *, packed: bool = False) -> File:
        """Write a file whole, or in parts NAME.HASH.0, NAME.HASH.1, ... that follow each other.

        Packed parts, gzip files each of which holds up to `part_bytes`, are named NAME.HASH.packed0, ...
        """
        path = hashed_name(name, content)
        stem = path.removesuffix(Path(path).suffix)
        pieces = [content[at : at + self.part_bytes] for at in range(0, len(content), self.part_bytes)] or [content]
        if packed:
            pieces = [gzip.compress(piece, PACKING_LEVEL, mtime=0) for piece in pieces]
            parts = [f"{stem}.packed{number}" for number in range(len(pieces))]
        else:
            parts = [f"{stem}.{number}" for number in range(len(pieces))] if len(pieces) > 1 else [path]
        for part, piece in zip(parts, pieces):
            self._put(part, piece)
        size = sum(map(len, pieces)) if packed else None
        return File(path=path, parts=tuple(parts), bytes=len(content), sha256=sha256_bytes(content), packed=size)

    def _put(self, name: str, content: bytes) -> None:
        self.written.add(name)
        path = self.path / name
        if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
            write_bytes(path, content)

    def finish(self, manifest: Manifest, pages: Mapping[str, str]) -> None:
        """Write the manifest and the pages, with which all becomes valid, and remove what only their old ones named."""
        texts = {MANIFEST: manifest.to_json() + "\n", **pages}
        old = [path.read_text(encoding="utf-8") for name in texts if (path := self.path / name).is_file()]
        for name, text in texts.items():
            write_text(self.path / name, text)
        for name in {name for text in old for name in HASHED.findall(text)} - self.written:
            (self.path / name).unlink(missing_ok=True)


def hashed_name(name: str, content: bytes) -> str:
    """Return a name with the first digits of the content's SHA-256 before its suffix."""
    path = Path(name)
    return path.with_name(f"{path.stem}.{sha256_bytes(content)[:HASH_DIGITS]}{path.suffix}").as_posix()


def require_own(folder: Path) -> None:
    """Raise InputError for a folder that holds other things than an export, which a new one would mix with.

    Raises ResourceError for one that cannot be written.
    """
    require_writable(folder)
    if folder.is_file():
        raise InputError(f"{folder}: a file; --out is a folder to make")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            read_manifest(folder)
        except InputError as error:
            raise InputError(
                f"{folder}: holds files that are no export of this toolkit; choose another --out or empty it"
            ) from error


def read_file(folder: Path, file: File) -> bytes:
    """Return the content of a file of an exported folder.

    Raises FormatError for a part that is missing, and for content that is not what was exported.
    """
    content = bytearray()
    try:
        for part in file.parts:
            content += _read_part(folder / part, packed=file.packed is not None)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        content.clear()
    if sha256_bytes(memoryview(content)) != file.sha256:
        names = " or ".join(file.parts)
        raise FormatError(f"{folder}: {names} is damaged (its SHA-256 differs); copy it again, or export it again")
    return bytes(content)


def _read_part(path: Path, *, packed: bool) -> bytes:
    if not path.is_file():
        raise FormatError(f"{path}: is missing; copy the whole folder, or export it again")
    return gzip.decompress(path.read_bytes()) if packed else path.read_bytes()

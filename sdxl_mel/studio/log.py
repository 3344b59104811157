"""The log of the studio: a JSON line an entry, only ever added to, on the disk before anyone is told.

A process that is killed while it writes leaves a line without an end; it is cut off when the log is opened again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sdxl_mel.files.atomic import clear_os_errors


class Log:
    """An open log; `append` returns when its entry is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with clear_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab+", buffering=0)
            self._file.truncate(_whole(self._file))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry. Raises ResourceError, the log as it was before, where it cannot be written."""
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size = self._file.seek(0, os.SEEK_END)
        with clear_os_errors(self.path):
            try:
                if self._file.write(line) != len(line):
                    raise OSError(28, os.strerror(28))
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(size)
                raise

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries in their order; a line that is damaged is passed over."""
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole(file: BinaryIO) -> int:
    """Return the bytes up to the end of the last whole line."""
    file.seek(0)
    return file.read().rfind(b"\n") + 1

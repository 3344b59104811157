"""What every reader asks of a file first: that it is there, that it is a file, and that it is no stand-in for one."""

from pathlib import Path

from sdxl_mel.errors import FormatError, InputError

FIRST_BYTES = 1 << 10
STAND_INS = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer and not the file it stands for; run git lfs pull",
    b"<!doctype html": "a web page and not {expected}: its download failed; get it again",
    b"<html": "a web page and not {expected}: its download failed; get it again",
    b"<?xml": "XML and not {expected}: its download failed; get it again",
}
"""How files begin that lie where another file should be, in lower case, and what they are."""


def first_bytes(path: Path, expected: str) -> bytes:
    """Return the first bytes of a file that should be `expected` ("a sound file").

    Raises InputError for what is missing, cannot be read or is no file, FormatError for an empty file, a Git LFS
    pointer and a web page under the name of another file.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: a folder, expected {expected}")
        if not path.exists():
            link = "a link to a file that does not exist" if path.is_symlink() else "no such file"
            raise InputError(f"{path}: {link}; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path}: a device or a pipe, expected {expected}")
        with path.open("rb") as file:
            first = file.read(FIRST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    if not first:
        raise FormatError(f"{path}: an empty file, expected {expected}")
    beginning = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what in STAND_INS.items():
        if beginning.startswith(start):
            raise FormatError(f"{path}: {what.format(expected=expected)}")
    return first

"""Records: the hashes of what was read."""

import hashlib
from pathlib import Path

import pytest

from sdxl_mel.errors import InputError
from sdxl_mel.record import sha256_file


def test_a_file_is_hashed_and_an_absent_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"mel" * 100_000)
    assert sha256_file(file) == hashlib.sha256(b"mel" * 100_000).hexdigest()
    with pytest.raises(InputError, match="absent: cannot be read"):
        sha256_file(tmp_path / "absent")

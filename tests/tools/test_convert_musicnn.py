"""The converter makes the shipped bytes again, and refuses damaged checkpoints; needs the package it converts."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdxl_mel.errors import FormatError, InputError
from tools.convert_musicnn import convert, read_tensor_bundle

SPEC = find_spec("musicnn")
pytestmark = pytest.mark.skipif(SPEC is None, reason="pip install --no-deps musicnn==0.1.0")
PACKAGE = Path(SPEC.submodule_search_locations[0]) if SPEC else Path()


def test_the_shipped_weights_are_what_it_makes(tmp_path: Path) -> None:
    for path in convert(PACKAGE, tmp_path):
        shipped = files("sdxl_mel").joinpath(f"assets/musicnn/{path.name}")
        assert path.read_bytes() == shipped.read_bytes()


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no TensorFlow checkpoint"):
        read_tensor_bundle(tmp_path)
    folder = PACKAGE / "MTT_musicnn"
    index, data = (folder / ".index").read_bytes(), (folder / ".data-00000-of-00001").read_bytes()
    for bad_index, bad_data in ((index[:-100], data), (index, data[:1000]), (b"", data), (b"\0" * 4948, data)):
        (tmp_path / ".index").write_bytes(bad_index)
        (tmp_path / ".data-00000-of-00001").write_bytes(bad_data)
        with pytest.raises(FormatError, match="install its package again"):
            read_tensor_bundle(tmp_path)

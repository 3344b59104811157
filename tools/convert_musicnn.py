"""Convert musicnn's weights: the TensorFlow 1 checkpoints of the PyPI package to sdxl_mel/assets/musicnn.

    pip install --no-deps --target /tmp/musicnn musicnn==0.1.0
    PYTHONPATH=. python tools/convert_musicnn.py /tmp/musicnn/musicnn

A checkpoint ("tensor bundle") is `PREFIX.index`, a LevelDB table from tensor names to BundleEntryProto messages, and
`PREFIX.data-00000-of-00001`, the raw tensors (tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/format.cc).
It is read here without TensorFlow. The optimizer's state in it, two thirds of the file, is left behind.
"""

import argparse
import ast
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.tensors import TensorType, write_tensors
from sdxl_mel.record import sha256_file

OUT = Path(__file__).parents[1] / "sdxl_mel/assets/musicnn"
LICENCE = "ISC, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019"
BATCH_NORM_EPS = 1e-3
"""TensorFlow's default; torch's is 1e-5."""
CONVOLUTIONS = ("conv2d", *(f"conv2d_{number}" for number in range(1, 8)))
NORMS = ("batch_normalization", *(f"batch_normalization_{number}" for number in range(1, 11)))
DENSE = {"hidden": "dense", "tags": "dense_1"}
TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}
"""TensorFlow's DataType numbers of what music models hold."""

Arrays = dict[str, NDArray[np.generic]]
Fields = dict[int, list[int | bytes]]


def convert(package: Path, out: Path) -> list[Path]:
    """Write mtt.safetensors and msd.safetensors from the folder of the package `musicnn`; returns their paths."""
    written = []
    for which in ("mtt", "msd"):
        folder = package / f"{which.upper()}_musicnn"
        tensors = to_torch(read_tensor_bundle(folder))
        metadata = {
            "tags": json.dumps(tags(package, which)),
            "source": f"{folder.name} of the PyPI package musicnn 0.1.0",
            "source_sha256": sha256_file(folder / ".data-00000-of-00001"),
            "licence": LICENCE,
        }
        types = {name: TensorType(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        path = out / f"{which}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, types, metadata, lambda name, into, tensors=tensors: into.copy_(tensors[name]))
        written.append(path)
    return written


def to_torch(arrays: Arrays) -> dict[str, Tensor]:
    """Return the tensors of `Musicnn`: kernels in torch's order, batch normalisation as a scale and a shift."""
    found: dict[str, NDArray[Any]] = {}
    for number, name in enumerate(CONVOLUTIONS):
        found[f"convolutions.{number}.weight"] = np.transpose(arrays[f"{name}/kernel"], (3, 2, 0, 1))
        found[f"convolutions.{number}.bias"] = arrays[f"{name}/bias"]
    for number, name in enumerate(NORMS):
        gamma, beta, mean, variance = (
            np.asarray(arrays[f"{name}/{part}"], dtype=np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        found[f"norms.{number}.scale"], found[f"norms.{number}.shift"] = scale, beta - mean * scale
    for ours, name in DENSE.items():
        found[f"{ours}.weight"], found[f"{ours}.bias"] = arrays[f"{name}/kernel"].T, arrays[f"{name}/bias"]
    return {name: torch.from_numpy(np.array(values, dtype=np.float32, order="C")) for name, values in found.items()}


def tags(package: Path, which: str) -> list[str]:
    """Return the tag names from the package's configuration.py, which is read and not run."""
    tree = ast.parse((package / "configuration.py").read_text(encoding="utf-8"))
    wanted = f"{which.upper()}_LABELS"
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == wanted:
            return list(ast.literal_eval(node.value))
    raise FormatError(f"{package}: its configuration.py has no {wanted}; expected musicnn 0.1.0")


def read_tensor_bundle(folder: Path, prefix: str = "") -> Arrays:
    """Return every numeric tensor of a bundle by name. Raises InputError if absent, FormatError if damaged."""
    index, data = folder / f"{prefix}.index", folder / f"{prefix}.data-00000-of-00001"
    try:
        table, raw = index.read_bytes(), data.read_bytes()
    except OSError as error:
        raise InputError(f"{folder}: no TensorFlow checkpoint here ({error.strerror}: {error.filename})") from error
    try:
        return dict(_tensors(table, raw))
    except (IndexError, ValueError, struct.error) as error:
        raise FormatError(f"{index}: not a whole TensorFlow checkpoint ({error}); install its package again") from error


def _tensors(table: bytes, raw: bytes) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for key, value in _table_entries(table):
        entry = _message(value)
        dtype = DTYPES.get(_integer(entry, 1))
        if not key or dtype is None:  # the empty key holds the header of the bundle
            continue
        shape = [_integer(_message(size), 1) for size in _shape(entry)]
        start, length = _integer(entry, 4), _integer(entry, 5)
        if start + length > len(raw):
            raise ValueError(f"tensor {key.decode()} ends after the data file")
        yield key.decode(), np.frombuffer(raw[start : start + length], dtype).reshape(shape)


def _shape(entry: Fields) -> list[bytes]:
    shape = entry.get(2, [b""])[0]
    assert isinstance(shape, bytes)
    return [size for size in _message(shape).get(2, []) if isinstance(size, bytes)]


def _table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = table[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != TABLE_MAGIC:
        raise ValueError("no table footer")
    _, place = _handle(footer, 0)
    index, _ = _handle(footer, place)
    for _, handle in _block(table, *index):
        block, _ = _handle(handle, 0)
        yield from _block(table, *block)


def _block(table: bytes, start: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one block; keys are stored as what differs from the key before."""
    if table[start + length] != 0:
        raise ValueError("compressed table")
    block = table[start : start + length]
    end = length - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        size, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        yield key, block[place + fresh : place + fresh + size]
        place += fresh + size


def _handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    start, place = _varint(content, place)
    length, place = _varint(content, place)
    return (start, length), place


def _message(content: bytes) -> Fields:
    """Return the fields of a protocol buffer message by number, undecoded."""
    fields: Fields = {}
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        value: int | bytes
        match tag & 7:
            case 0:
                value, place = _varint(content, place)
            case 2:
                size, place = _varint(content, place)
                value, place = content[place : place + size], place + size
            case 1:
                value, place = content[place : place + 8], place + 8
            case 5:
                value, place = content[place : place + 4], place + 4
            case kind:
                raise ValueError(f"unknown wire type {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _integer(fields: Fields, number: int) -> int:
    value = fields.get(number, [0])[0]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not a number")
    return value


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="folder of the installed package musicnn")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the safetensors files")
    given = parser.parse_args()
    for path in convert(given.package, given.out):
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

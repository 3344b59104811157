"""Safetensors files, one tensor at a time: memory-mapped to read, streamed to write.

The library's own writer needs all tensors at once and puts the metadata in an order that changes from run to run;
this one holds a single tensor and makes the same bytes every time.
"""

import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.opening import first_bytes

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
ALIGNMENT = 8


class TensorType(NamedTuple):
    """What a file says of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class Pages:
    """A file in memory, and tensors that lie in it."""

    def __init__(self, content: mmap.mmap) -> None:
        self._map = content

    def tensor(self, kind: TensorType, place: int) -> Tensor:
        """Return the tensor at a place, in the file's own pages."""
        if prod(kind.shape) == 0:
            return torch.empty(kind.shape, dtype=kind.dtype)
        return torch.frombuffer(self._map, dtype=kind.dtype, count=prod(kind.shape), offset=place).reshape(kind.shape)

    def forget(self, kind: TensorType, place: int) -> None:
        """Let the pages of a tensor go; what was written to them is the file's."""
        first = -(-place // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (place + kind.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class TensorFile:
    """A safetensors file: `metadata`, `types` by name, and tensors read when they are asked for.

    Raises InputError for a missing file or a pickle, FormatError for a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets, self.types, self.metadata, self._start = _read_header(path)
        with path.open("rb") as file:
            self._pages = Pages(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def read(self, name: str) -> Tensor:
        """Return a tensor that looks into the map: clone it to keep it."""
        return self._pages.tensor(self.types[name], self._start + self._offsets[name])

    def forget(self, name: str) -> None:
        """Let the pages of a tensor go, so that reading a whole file does not fill the memory."""
        self._pages.forget(self.types[name], self._start + self._offsets[name])


def _read_header(path: Path) -> tuple[dict[str, int], dict[str, TensorType], dict[str, str], int]:
    """Return (offsets, types, metadata, where the data starts) of a file that safetensors itself finds valid."""
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(ALIGNMENT), "little")
            header = parse_json(file.read(length))
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error}); get it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read this file ({error.strerror or error})") from error
    metadata = header.pop("__metadata__", {})
    unknown = sorted({entry["dtype"] for entry in header.values()} - set(DTYPES))
    if unknown:
        raise FormatError(f"{path}: tensors of type {', '.join(unknown)}; expected {', '.join(DTYPES)}")
    offsets = {name: entry["data_offsets"][0] for name, entry in header.items()}
    types = {name: TensorType(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
    return offsets, types, metadata, ALIGNMENT + length


def refuse_pickle(path: Path) -> None:
    """Raise InputError if a file is a pickle by its name or its first bytes (a zip, or protocol 2 and later)."""
    first = first_bytes(path, "a safetensors file")[: ALIGNMENT + 1]
    # The length of a safetensors header can begin with a pickle's bytes; the header itself begins with a brace.
    pickled = first[:2] in (b"PK", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5") and first[ALIGNMENT:] not in (b"{", b"")
    if path.suffix.lower() in PICKLES or pickled:
        raise InputError(
            f"{path}: a pickle, which can run any code when it is opened; convert it first where that is safe: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')"
        )


def write_tensors(
    path: Path,
    types: Mapping[str, TensorType],
    metadata: Mapping[str, str],
    put: Callable[[str, Tensor], object],
    *,
    beside: Sequence[Callable[[], object]] = (),
    final: Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Write a safetensors file, whole or not at all, calling `put(name, tensor)` once to fill each tensor.

    `beside` is long work that the same threads begin first, and `final` returns the metadata when all is done, such as
    hashes that were made meanwhile: as long as `metadata`, whose place in the file it takes.

    Each of torch's threads fills tensors, which lie in the file's own pages; `put` must bear that. Calls that write
    would hold the lock of the file, so that one thread waits for the other, and copy every number once more.
    Tensors lie by size of element and then by name, so that each is aligned; the same tensors make the same bytes.
    """
    order = sorted(types, key=lambda name: (-types[name].dtype.itemsize, name))
    header = _header(types, metadata, order)
    size = len(header)
    *places, end = accumulate((types[name].nbytes for name in order), initial=size)
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        _reserve(file.fileno(), end)
        content = mmap.mmap(file.fileno(), end)
        pages = Pages(content)

        def fill(name: str, place: int) -> None:
            put(name, pages.tensor(types[name], place))
            pages.forget(types[name], place)

        jobs: list[Callable[[], object]] = [*beside, *(partial(fill, *tensor) for tensor in zip(order, places))]
        for _ in map_jobs(_call, jobs, look_ahead=len(jobs) if beside else None):
            pass
        content.close()  # Windows renames no file that is still mapped.
        if final is not None:
            header = _header(types, final(), order)
            assert len(header) == size, "what is known last takes the place that was kept for it"
        # Last, so that no loader accepts what a kill leaves.
        file.write(header)


def _call(job: Callable[[], object]) -> None:
    job()


def _reserve(file: int, size: int) -> None:
    """Make a file this long, its room on the disk taken: where it is full, writing to a page would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor as a file holds them."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(types: Mapping[str, TensorType], metadata: Mapping[str, str], order: list[str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in order:
        kind = types[name]
        entries[name] = {
            "dtype": NAMES[kind.dtype],
            "shape": list(kind.shape),
            "data_offsets": [offset, offset + kind.nbytes],
        }
        offset += kind.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(ALIGNMENT, "little") + text

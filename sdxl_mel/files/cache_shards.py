"""Shards of a cache: safetensors files that hold the rows of many keys, and say what they are.

A key is the hash of everything that decides a row's content, so a row found under its key is never stale.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.atomic import write_bytes

if TYPE_CHECKING:
    import torch

FORMAT = 1
HEADER_KEY = "sdxl-mel"
OPEN_SHARDS = 256
Kind = Literal["latents", "text"]
TENSORS: dict[str, tuple[str, str]] = {"latents": ("mean", "logvar"), "text": ("hidden", "pooled")}


class ShardHeader(BaseModel):
    """What a shard says of itself; row i belongs to `keys[i]`, `labels[i]` is its text (empty for latents).

    `about` holds what all rows share (spec, hashes of the weights, clip skip); `data_sha256` is the hash of the rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: Kind
    dtype: Literal["float32"] = "float32"
    about: dict[str, str]
    keys: tuple[str, ...]
    labels: tuple[str, ...] = ()
    data_sha256: str = ""


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard on disk whose header was read and whose length is right; rows are read when asked for."""

    path: Path
    header: ShardHeader

    def row(self, index: int) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the two tensors of one row, copied out of the memory map.

        Raises FormatError if they are not finite.
        """
        file = _opened(str(self.path), self.path.stat().st_mtime_ns)
        first, second = (file.get_slice(name)[index] for name in TENSORS[self.header.kind])
        if not (first.isfinite().all() and second.isfinite().all()):
            raise FormatError(f"{self.path}: row {index} is not finite; run sdxl-mel cache verify")
        return first, second

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the two tensors of a row."""
        file = _opened(str(self.path), self.path.stat().st_mtime_ns)
        first, second = (tuple(file.get_slice(name).get_shape()[1:]) for name in TENSORS[self.header.kind])
        return first, second


def key_of(*parts: object) -> str:
    """Return the key of a row: the SHA-256 of everything that decides its content, the format included."""
    return hashlib.sha256(json.dumps([FORMAT, *map(str, parts)]).encode()).hexdigest()


def shard_name(kind: Kind, about: Mapping[str, str], keys: Sequence[str]) -> str:
    """Return the file name of the shard with these keys."""
    return f"{kind}-{key_of(kind, json.dumps(dict(about), sort_keys=True), *keys)[:20]}.safetensors"


def write_shard(path: Path, header: ShardHeader, first: "torch.Tensor", second: "torch.Tensor") -> None:
    """Write a shard, whole or not at all; (rows, ...) each. The same rows make the same bytes.

    Raises InputError for rows that are not finite: they must never be trained on.
    """
    from safetensors.torch import save

    if not (first.isfinite().all() and second.isfinite().all()):
        raise InputError(f"{path}: rows that are not finite are not written")
    tensors = dict(zip(TENSORS[header.kind], (first.contiguous(), second.contiguous())))
    whole = header.model_copy(update={"data_sha256": _data_hash(tensors)})
    write_bytes(path, save(tensors, metadata={HEADER_KEY: whole.model_dump_json()}))


def read_shard(path: Path) -> Shard:
    """Read a shard's header. Raises FormatError for a file that is missing, truncated or not a shard."""
    from safetensors import SafetensorError, safe_open

    again = "run sdxl-mel cache again: it makes this shard anew and keeps the others"
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
            names = set(file.keys())
            rows = {tuple(file.get_slice(name).get_shape())[:1] for name in names}
        header = ShardHeader.model_validate_json(text or "")
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: a damaged or truncated shard ({error}); {again}") from error
    except ValidationError as error:
        raise FormatError(f"{path}: not a shard of this format ({error.errors()[0]['msg']}); {again}") from error
    if names != set(TENSORS[header.kind]) or rows != {(len(header.keys),)}:
        raise FormatError(f"{path}: its tensors are not those its header lists; {again}")
    return Shard(path, header)


def check_rows(shard: Shard) -> None:
    """Raise FormatError unless every byte of a shard's rows is what was written."""
    file = _opened(str(shard.path), shard.path.stat().st_mtime_ns)
    tensors = {name: file.get_tensor(name) for name in TENSORS[shard.header.kind]}
    if _data_hash(tensors) != shard.header.data_sha256:
        raise FormatError(f"{shard.path}: its rows changed after they were written (a failing disk?)")


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(path: str, _mtime: int) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: a damaged or truncated shard ({error}); run sdxl-mel cache again") from error


def _data_hash(tensors: Mapping[str, "torch.Tensor"]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()

"""The cache a trainer reads: latents and text embeddings of a dataset, addressed by content, through memory maps.

DIR/cache.json        what it was made of and with; written last, so that it vouches for the rest
DIR/examples.jsonl    one line a clip: its source, its latents' keys (one an offset), its captions' keys
DIR/latents/*, DIR/text/*    shards: safetensors files that hold the rows of many keys, and say what they are

A key is the hash of everything that decides a row's content, so a row found under its key is never stale.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.atomic import write_bytes, write_json, write_text
from sdxl_mel.files.header import Frozen, parse_json, read_versioned
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec

HEADER_NAME = "cache.json"
EXAMPLES_NAME = "examples.jsonl"
LATENT_CHANNELS = 4
FORMAT = 1
HEADER_KEY = "sdxl-mel"
OPEN_SHARDS = 256
Kind = Literal["latents", "text", "trajectories"]
TENSORS: dict[str, tuple[str, str]] = {
    "latents": ("mean", "logvar"),
    "text": ("hidden", "pooled"),
    "trajectories": ("noise", "states"),
}
AGAIN = "run sdxl-mel cache again: it makes this shard anew and keeps the others"


class ShardHeader(Frozen):
    """What a shard says of itself; row i belongs to `keys[i]`, `labels[i]` is its text (empty for latents).

    `about` holds what all rows share (spec, hashes of the weights, clip skip); `data_sha256` is the hash of the rows.
    """

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

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the two tensors of one row, copied out of the memory map.

        Raises FormatError if they are not finite.
        """
        first, second = (self.file().get_slice(name)[index] for name in TENSORS[self.header.kind])
        if not (first.isfinite().all() and second.isfinite().all()):
            raise FormatError(f"{self.path}: row {index} is not finite; run sdxl-mel cache verify")
        return first, second

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the two tensors of a row."""
        first, second = (tuple(self.file().get_slice(name).get_shape()[1:]) for name in TENSORS[self.header.kind])
        return first, second

    def file(self) -> Any:
        """Return the file, opened by safetensors."""
        return _opened(str(self.path), self.path.stat().st_mtime_ns)


def key_of(*parts: object) -> str:
    """Return the key of a row: the SHA-256 of everything that decides its content, the format included."""
    return hashlib.sha256(json.dumps([FORMAT, *map(str, parts)]).encode()).hexdigest()


def shard_name(kind: Kind, about: Mapping[str, str], keys: Sequence[str]) -> str:
    """Return the file name of the shard with these keys."""
    return f"{kind}-{key_of(kind, json.dumps(dict(about), sort_keys=True), *keys)[:20]}.safetensors"


def write_shard(path: Path, header: ShardHeader, first: Tensor, second: Tensor) -> None:
    """Write a shard, whole or not at all; (rows, ...) each. The same rows make the same bytes.

    Raises InputError for rows that are not finite: they must never be trained on.
    """
    if not (first.isfinite().all() and second.isfinite().all()):
        raise InputError(f"{path}: rows that are not finite are not written")
    tensors = dict(zip(TENSORS[header.kind], (first.contiguous(), second.contiguous())))
    whole = header.model_copy(update={"data_sha256": _data_hash(tensors)})
    write_bytes(path, save(tensors, metadata={HEADER_KEY: whole.model_dump_json()}))


def read_shard(path: Path, again: str = AGAIN) -> Shard:
    """Read a shard's header. Raises FormatError, with `again`, for a file that is missing, truncated or not a shard."""
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
    tensors = {name: shard.file().get_tensor(name) for name in TENSORS[shard.header.kind]}
    if _data_hash(tensors) != shard.header.data_sha256:
        raise FormatError(f"{shard.path}: its rows changed after they were written (a failing disk?)")


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(path: str, _mtime: int) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: a damaged or truncated shard ({error}); run sdxl-mel cache again") from error


def _data_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


class CacheHeader(Frozen):
    """What `cache.json` says; `identity` holds the hashes of the VAE and of both text encoders."""

    format: int = FORMAT
    spec: MelSpec
    anchor: str
    clip_skip: int
    identity: dict[str, str]
    scaling_factor: float
    empty_text: str
    shards: tuple[str, ...]
    examples_sha256: str
    counts: dict[str, int]
    record: Record


@dataclass(frozen=True, slots=True)
class CachedExample:
    """One clip: where its latents and its captions lie in the cache.

    `key` is a hash of its pictures, `offsets` has one latents key a time offset, `captions` the key of each variant.
    """

    key: str
    source: str
    track: str
    weight: float
    repeats: int
    group: str
    offsets: tuple[str, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """An opened cache; the memory it takes does not grow with the size of the pictures."""

    folder: Path
    header: CacheHeader
    splits: Mapping[str, list[CachedExample]]
    by_key: Mapping[str, CachedExample]
    rows: Mapping[str, tuple[Shard, int]]

    def examples(self, split: str) -> list[CachedExample]:
        """Return the clips of a split; empty if there are none."""
        return self.splits.get(split, [])

    def latents(self, key: str, offset: int = 0) -> tuple[Tensor, Tensor]:
        """Return (mean, logvar) of a clip at a time offset, (4, height / 8, width / 8) float32, unscaled."""
        row_key = self.by_key[key].offsets[offset]
        shard, index = self.rows[row_key]
        mean, logvar = shard.row(index)
        if tuple(mean.shape) != latent_shape(self.header.spec) or mean.shape != logvar.shape:
            raise FormatError(
                f"{self.folder}: latents {row_key[:12]} have shape {tuple(mean.shape)}; make the cache anew"
            )
        return mean, logvar

    def text(self, text_key: str) -> tuple[Tensor, Tensor]:
        """Return a caption's prompt embeddings (77, width of both encoders) and pooled ones (projection,), float32."""
        shard, index = self.rows[text_key]
        return shard.row(index)

    def caption(self, text_key: str) -> str:
        """Return the words of a caption."""
        shard, index = self.rows[text_key]
        return shard.header.labels[index]

    def require_identity(self, identity: Mapping[str, str], name: str) -> None:
        """Raise MismatchError unless the rows were made by the parts that `identity` has; `name` is whose it is."""
        other = [part for part, made_by in self.header.identity.items() if identity.get(part, made_by) != made_by]
        if other:
            raise MismatchError(
                f"{self.folder}: made with another {' and '.join(other)} than {name} has; run sdxl-mel cache with "
                "this base, or train with the base (and --vae) it was made with"
            )


def latents_key(picture_sha256: str, vae: str) -> str:
    """Return the key of the latents of a picture's bytes under a VAE."""
    return key_of("latents", picture_sha256, vae)


def text_key(text: str, encoders: Sequence[str], clip_skip: int) -> str:
    """Return the key of the embeddings of a text under two encoders."""
    return key_of("text", text, *encoders, clip_skip)


def example_key(offsets: Sequence[str]) -> str:
    """Return the key of a clip from those of its latents."""
    return offsets[0] if len(offsets) == 1 else key_of("clip", *offsets)


def latent_shape(spec: MelSpec) -> tuple[int, int, int]:
    """Return (channels, height, width) of the latents of a tile."""
    return LATENT_CHANNELS, spec.n_mels // LATENT_FACTOR, spec.width // LATENT_FACTOR


def write_cache(folder: Path, header: CacheHeader, splits: Mapping[str, Sequence[CachedExample]]) -> None:
    """Write the list of examples and the header beside shards that exist already; the header last."""
    lines = []
    for split, examples in splits.items():
        for example in examples:
            values = {"split": split} | {name: getattr(example, name) for name in CachedExample.__slots__}
            lines.append(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
    content = "".join(lines)
    write_text(folder / EXAMPLES_NAME, content)
    header = header.model_copy(update={"examples_sha256": sha256_bytes(content.encode())})
    write_json(folder / HEADER_NAME, header.model_dump(mode="json"))


def open_cache(folder: Path) -> Cache:
    """Open a cache: its lists and the headers of its shards are read and checked, its rows are not.

    Raises InputError for a folder that is no cache, FormatError for anything missing, damaged or out of step.
    """
    header = read_header(folder)
    shards = [read_shard(folder / name) for name in header.shards]
    rows = {key: (shard, index) for shard in shards for index, key in enumerate(shard.header.keys)}
    content = (folder / EXAMPLES_NAME).read_bytes() if (folder / EXAMPLES_NAME).is_file() else b""
    if sha256_bytes(content) != header.examples_sha256:
        raise FormatError(
            f"{folder / EXAMPLES_NAME}: not the list {HEADER_NAME} was written with; run sdxl-mel cache again"
        )
    splits: dict[str, list[CachedExample]] = {}
    for values in map(parse_json, content.splitlines()):
        split = values.pop("split")
        values |= {name: tuple(values[name]) for name in ("offsets", "captions")}
        splits.setdefault(split, []).append(CachedExample(**values))
    by_key = {example.key: example for examples in splits.values() for example in examples}
    wanted = {key for example in by_key.values() for key in (*example.offsets, *example.captions)} | {header.empty_text}
    lost = len(wanted - rows.keys())
    if lost:
        raise FormatError(f"{folder}: {lost} rows are in no shard; run sdxl-mel cache again")
    return Cache(folder, header, splits, by_key, rows)


def read_header(folder: Path) -> CacheHeader:
    """Read `cache.json`. Raises InputError where there is none and FormatError where it is not ours."""
    return read_versioned(
        folder / HEADER_NAME,
        CacheHeader,
        newest=FORMAT,
        what="cache",
        missing="no finished cache; make one with sdxl-mel cache",
        again="run sdxl-mel cache again",
    )

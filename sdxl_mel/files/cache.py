"""The cache a trainer reads: latents and text embeddings of a dataset, addressed by content, through memory maps.

DIR/cache.json        what it was made of and with; written last, so that it vouches for the rest
DIR/examples.jsonl    one line a clip: its source, its latents' keys (one an offset), its captions' keys
DIR/latents/*, DIR/text/*    shards (see cache_shards)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.atomic import write_json, write_text
from sdxl_mel.files.cache_shards import FORMAT, Shard, key_of, read_shard
from sdxl_mel.record import Record, sha256_bytes
from sdxl_mel.sound.melspec import LATENT_FACTOR, MelSpec

if TYPE_CHECKING:
    import torch

HEADER_NAME = "cache.json"
EXAMPLES_NAME = "examples.jsonl"
LATENT_CHANNELS = 4


class CacheHeader(BaseModel):
    """What `cache.json` says; `identity` holds the hashes of the VAE and of both text encoders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    `key` is a hash of its pictures, `offsets` has one latents key a time offset, `captions` the key of each wording.
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

    @property
    def spec(self) -> MelSpec:
        """Return the spec of the pictures."""
        return self.header.spec

    @property
    def anchor(self) -> str:
        """Return the words every caption starts with."""
        return self.header.anchor

    @property
    def clip_skip(self) -> int:
        """Return how many layers beyond the penultimate one the text encoders skipped."""
        return self.header.clip_skip

    @property
    def identity(self) -> dict[str, str]:
        """Return the hashes of the VAE and of both text encoders that made the rows."""
        return self.header.identity

    @property
    def scaling_factor(self) -> float:
        """Return what latents are multiplied by before training; those in the cache are not."""
        return self.header.scaling_factor

    @property
    def empty_text(self) -> str:
        """Return the text key of the empty caption, the unconditional."""
        return self.header.empty_text

    def examples(self, split: str) -> list[CachedExample]:
        """Return the clips of a split; empty if there are none."""
        return self.splits.get(split, [])

    def latents(self, key: str, offset: int = 0) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return (mean, logvar) of a clip at a time offset, (4, height / 8, width / 8) float32, unscaled."""
        row_key = self.by_key[key].offsets[offset]
        mean, logvar = self._row(row_key)
        if tuple(mean.shape) != latent_shape(self.spec) or mean.shape != logvar.shape:
            raise FormatError(
                f"{self.folder}: latents {row_key[:12]} have shape {tuple(mean.shape)}; make the cache anew"
            )
        return mean, logvar

    def text(self, text_key: str) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return (hidden, pooled) of a caption, (77, width of both encoders) and (projection,), float32."""
        return self._row(text_key)

    def caption(self, text_key: str) -> str:
        """Return the words of a caption."""
        shard, index = self.rows[text_key]
        return shard.header.labels[index]

    def require_identity(self, identity: Mapping[str, str], name: str) -> None:
        """Raise MismatchError unless the rows were made by the parts that `identity` has; `name` is whose it is."""
        other = [part for part, made_by in self.identity.items() if identity.get(part, made_by) != made_by]
        if other:
            raise MismatchError(
                f"{self.folder}: made with another {' and '.join(other)} than {name} has; run sdxl-mel cache with "
                "this base, or train with the base (and --vae) it was made with"
            )

    def _row(self, key: str) -> tuple["torch.Tensor", "torch.Tensor"]:
        shard, index = self.rows[key]
        return shard.row(index)


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


def is_cache(folder: Path) -> bool:
    """Say whether a folder holds a cache."""
    return (folder / HEADER_NAME).is_file()


def write_cache(folder: Path, header: CacheHeader, splits: Mapping[str, Sequence[CachedExample]]) -> None:
    """Write the list of examples and the header beside shards that exist already; the header last."""
    lines = examples_text(splits)
    write_text(folder / EXAMPLES_NAME, lines)
    write_json(
        folder / HEADER_NAME,
        header.model_copy(update={"examples_sha256": sha256_bytes(lines.encode())}).model_dump(mode="json"),
    )


def examples_text(splits: Mapping[str, Sequence[CachedExample]]) -> str:
    """Return the lines of `examples.jsonl`."""
    return "".join(f"{_line(split, example)}\n" for split, examples in splits.items() for example in examples)


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
    for split, example in _parsed(content):
        splits.setdefault(split, []).append(example)
    by_key = {example.key: example for examples in splits.values() for example in examples}
    wanted = {key for example in by_key.values() for key in (*example.offsets, *example.captions)} | {header.empty_text}
    lost = len(wanted - rows.keys())
    if lost:
        raise FormatError(f"{folder}: {lost} rows are in no shard; run sdxl-mel cache again")
    return Cache(folder, header, splits, by_key, rows)


def read_header(folder: Path) -> CacheHeader:
    """Read `cache.json`. Raises InputError where there is none and FormatError where it is not ours."""
    path = folder / HEADER_NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder}: no finished cache ({HEADER_NAME}: {error.strerror}); make one with sdxl-mel cache"
        ) from error
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error}); run sdxl-mel cache again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise FormatError(f"{path}: cache format {found}, this toolkit reads {FORMAT}; update sdxl-mel")
    try:
        return CacheHeader.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "header"
        raise FormatError(f"{path}: {place}: {first['msg']}; run sdxl-mel cache again") from error


def _line(split: str, example: CachedExample) -> str:
    values = {"split": split} | {name: getattr(example, name) for name in CachedExample.__slots__}
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _parsed(content: bytes) -> Iterator[tuple[str, CachedExample]]:
    for line in content.splitlines():
        values = json.loads(line)
        split, values["offsets"], values["captions"] = (
            values.pop("split"),
            tuple(values["offsets"]),
            tuple(values["captions"]),
        )
        yield split, CachedExample(**values)

"""The cache of a dataset: `build` makes the shards that are missing, in one process or several, and vouches for all of
them at the end; `verify` checks every byte; `prune` deletes what no clip uses.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from sdxl_mel.dataset.cache_plan import Plan, ShardPlan, make_plan, open_parts
from sdxl_mel.dataset.settings import CacheContents, CacheSettings
from sdxl_mel.devices import find_device
from sdxl_mel.errors import FormatError, MismatchError, ResourceError
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.atomic import clear_os_errors
from sdxl_mel.files.cache import (
    HEADER_NAME,
    CacheHeader,
    Kind,
    Shard,
    ShardHeader,
    check_rows,
    latent_shape,
    open_cache,
    read_header,
    read_shard,
    write_cache,
    write_shard,
)
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.files.writer import only_writer
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.text_encoding import encode_prompts, tokens_lost
from sdxl_mel.models.vae import encode, images_of
from sdxl_mel.progress import Ticker, log, muted, progress, track
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec, require_equal

READERS = 2
BATCH_PIXELS = 1 << 20
TEXT_BATCH = 32
Row = tuple[str, str]
Encoded = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Encoder:
    """How rows of one kind are made: `read` a label's input, `encode` a batch of them, `batch` at a time."""

    read: Callable[[str], Any]
    encode: Callable[[Sequence[Any], Sequence[str]], Encoded]
    batch: int


def build(
    folder: Path, settings: CacheSettings, device: str | None = None, batch_pixels: int = BATCH_PIXELS
) -> CacheContents:
    """Make a cache in `folder`, or bring one up to date; several processes started by accelerate share the work.

    The VAE takes pictures of `batch_pixels` at once. Whole shards of an interrupted run are kept. Raises FormatError,
    InputError and ResourceError as their causes do.
    """
    # `Accelerator` reads what `accelerate launch --cpu` says, PartialState does not.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    with clear_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    alone = only_writer(folder) if state.is_main_process else nullcontext()
    with alone, muted(not state.is_main_process):
        plan = make_plan(settings)
        if state.is_main_process:
            for path in _temporaries(folder):
                path.unlink(missing_ok=True)
        found, damaged = existing_shards(folder)
        todo = [shard for shard in plan.shards if not _is_made(shard, found.get(folder / shard.name))]
        rows = reusable_rows(found.values(), {key for shard in todo for key, _ in shard.rows})
        # Nobody writes before everybody has looked, so all processes deal the same shards.
        state.wait_for_everyone()
        mine = todo[state.process_index :: state.num_processes]
        place = find_device(device) if device else str(state.device)
        openers: dict[Kind, Callable[[], Encoder]] = {
            "latents": lambda: picture_encoder(
                open_parts(settings, ("vae",), place).vae, plan.dataset.spec, batch_pixels
            ),
            "text": lambda: _text_encoder(settings, place),
        }
        for kind, opened in openers.items():
            shards = [shard for shard in mine if shard.kind == kind]
            missing = _count_missing(shards, rows)
            with progress(missing, f"caching {kind}", "rows") as ticker:
                make_shards(folder, shards, rows, opened() if missing else None, ticker)
        state.wait_for_everyone()
        if state.is_main_process:
            write_cache(folder, header_of(plan, settings), plan.splits)
        state.wait_for_everyone()
        return CacheContents(
            pictures=plan.count("latents"),
            texts=plan.count("text"),
            encoded_pictures=_count_missing([shard for shard in todo if shard.kind == "latents"], rows),
            encoded_texts=_count_missing([shard for shard in todo if shard.kind == "text"], rows),
            damaged=len(damaged),
            unused=len(unused_files(folder)),
            too_long=_too_long(settings, plan),
        )


def verify(folder: Path, settings: CacheSettings | None = None) -> CacheContents:
    """Check that a cache is complete, that every row is what was written, and finite, and of the right shape.

    With `settings` also that it is what they and the dataset would make now. Raises FormatError or MismatchError that
    says how much is wrong and names the first.
    """
    cache = open_cache(folder)
    shards = list(dict.fromkeys(shard for shard, _ in cache.rows.values()))
    problems = []
    for shard in track(shards, len(shards), "verifying", "shards"):
        try:
            _check(shard, latent_shape(cache.header.spec))
        except FormatError as error:
            problems.append(str(error))
    if problems:
        raise FormatError(
            f"{folder}: {len(problems)} of {len(shards)} shards are damaged; delete them and run sdxl-mel cache again; "
            f"first: {problems[0]}"
        )
    if settings is not None:
        _require_current(folder, make_plan(settings))
    counts = cache.header.counts
    return CacheContents(**counts, unused=len(unused_files(folder)))


def prune(folder: Path) -> CacheContents:
    """Delete the shards that no clip of the finished cache uses, and what killed runs left behind."""
    counts = open_cache(folder).header.counts
    with only_writer(folder):
        unused = unused_files(folder)
        freed = sum(path.stat().st_size for path in unused)
        for path in unused:
            path.unlink()
    return CacheContents(**counts, deleted=len(unused), freed_bytes=freed)


def unused_files(folder: Path) -> list[Path]:
    """Return the shards that cache.json does not list and the temporary files of killed runs."""
    listed = set(read_header(folder).shards) if (folder / HEADER_NAME).is_file() else set()
    shards = [path for path in folder.glob("*/*.safetensors") if path.relative_to(folder).as_posix() not in listed]
    return sorted([*shards, *_temporaries(folder)])


def existing_shards(folder: Path) -> tuple[dict[Path, Shard], list[Path]]:
    """Return the whole shards of a cache by their path, and the paths of damaged ones."""
    found, damaged = {}, []
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            found[path] = read_shard(path)
        except FormatError as error:
            log(f"{error}")
            damaged.append(path)
    return found, damaged


def reusable_rows(shards: Iterable[Shard], wanted: Set[str]) -> dict[str, tuple[Shard, int]]:
    """Return where wanted rows lie in older shards; a shard whose bytes changed since it was written gives none."""
    rows: dict[str, tuple[Shard, int]] = {}
    for shard in shards:
        hits = {key: (shard, index) for index, key in enumerate(shard.header.keys) if key in wanted}
        if not hits:
            continue
        try:
            check_rows(shard)
        except FormatError as error:
            log(f"{error}; not used")
            continue
        rows |= hits
    return rows


def header_of(plan: Plan, settings: CacheSettings) -> CacheHeader:
    """Return what cache.json says of a plan that was carried out."""
    record = Record(
        stage="cache",
        settings={"variants": settings.variants, "clip_skip": settings.clip_skip, "seed": settings.seed},
        inputs=plan.identity,
    )
    return CacheHeader(
        spec=plan.dataset.spec,
        anchor=plan.dataset.anchor,
        clip_skip=settings.clip_skip,
        identity=plan.identity,
        scaling_factor=plan.scaling_factor,
        empty_text=plan.empty_text,
        shards=tuple(sorted(shard.name for shard in plan.shards)),
        examples_sha256="",
        counts={"pictures": plan.count("latents"), "texts": plan.count("text")},
        record=record,
    )


def _is_made(plan: ShardPlan, shard: Shard | None) -> bool:
    return shard is not None and shard.header.keys == tuple(key for key, _ in plan.rows)


def _count_missing(shards: Sequence[ShardPlan], rows: Mapping[str, object]) -> int:
    return sum(key not in rows for shard in shards for key, _ in shard.rows)


def make_shards(
    folder: Path,
    shards: Sequence[ShardPlan],
    rows: Mapping[str, tuple[Shard, int]],
    encoder: Encoder | None,
    ticker: Ticker,
) -> None:
    """Write each shard when its last missing row is encoded; rows that an older shard holds are copied from it.

    Only with no row missing may `encoder` be None. The next batches are read while one is encoded.
    """
    fresh: dict[str, Encoded] = {}
    waiting = list(shards)
    if encoder is not None:
        batches = _batches(shards, rows, encoder.batch)
        for batch, inputs in map_jobs(partial(_read, encoder), batches, workers=READERS):
            first, second = _within_memory(encoder, inputs, [label for _, label in batch])
            fresh |= {key: (first[index], second[index]) for index, (key, _) in enumerate(batch)}
            while waiting and all(key in fresh or key in rows for key, _ in waiting[0].rows):
                _write(folder, waiting.pop(0), rows, fresh)
            ticker.advance(len(batch))
    for shard in waiting:
        _write(folder, shard, rows, fresh)


def _read(encoder: Encoder, batch: Sequence[Row]) -> tuple[Sequence[Row], list[Any]]:
    return batch, [encoder.read(label) for _, label in batch]


def _within_memory(encoder: Encoder, inputs: Sequence[Any], labels: Sequence[str]) -> Encoded:
    try:
        return encoder.encode(inputs, labels)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"out of memory with {len(inputs)} in a batch; what is finished is kept: run again with a smaller "
            "--batch-pixels"
        ) from error


def _batches(shards: Sequence[ShardPlan], rows: Mapping[str, object], size: int) -> Iterator[list[Row]]:
    """Yield batches of missing rows; none spans two shards, so no interruption changes what a row is encoded with."""
    for shard in shards:
        missing = [row for row in shard.rows if row[0] not in rows]
        yield from (missing[start : start + size] for start in range(0, len(missing), size))


def _write(folder: Path, shard: ShardPlan, rows: Mapping[str, tuple[Shard, int]], fresh: dict[str, Encoded]) -> None:
    keys = [key for key, _ in shard.rows]
    pairs = [fresh.pop(key) if key in fresh else rows[key][0].row(rows[key][1]) for key in keys]
    labels = tuple(label for _, label in shard.rows) if shard.kind == "text" else ()
    header = ShardHeader(kind=shard.kind, about=shard.about, keys=tuple(keys), labels=labels)
    write_shard(folder / shard.name, header, *(torch.stack(part) for part in zip(*pairs)))


def picture_encoder(vae: Any, spec: MelSpec, batch_pixels: int) -> Encoder:
    """Return the encoder of tiles with a VAE; it raises MismatchError if the VAE's latents are of another size."""

    def encode_pictures(pictures: Sequence[Any], names: Sequence[str]) -> Encoded:
        mean, logvar = encode(vae, images_of(np.stack(pictures), spec.low_at), names)
        if tuple(mean.shape[1:]) != latent_shape(spec):
            found, expected = tuple(mean.shape[1:]), latent_shape(spec)
            raise MismatchError(f"the VAE makes latents of {found} from pictures of {spec.size}, not {expected}")
        return mean, logvar

    width, height = spec.size
    batch = _batch_size(vae.device, max(1, batch_pixels // (width * height)))
    return Encoder(lambda label: read_tile(Path(label), spec), encode_pictures, batch)


def _batch_size(device: torch.device, wanted: int) -> int:
    """Return 1 on a CPU: no slower there, and a row's last bits then depend on nothing but its own input."""
    return 1 if device.type == "cpu" else wanted


def _text_encoder(settings: CacheSettings, device: str) -> Encoder:
    base = open_parts(settings, TEXT_ENCODERS, device)

    def encode_texts(texts: Sequence[str], _names: Sequence[str]) -> Encoded:
        with torch.no_grad():
            first, second = encode_prompts(base, texts, settings.clip_skip)
        return first.to("cpu", torch.float32), second.to("cpu", torch.float32)

    return Encoder(lambda label: label, encode_texts, _batch_size(base.text_encoder.device, TEXT_BATCH))


def _too_long(settings: CacheSettings, plan: Plan) -> int:
    texts = [label for shard in plan.shards if shard.kind == "text" for _, label in shard.rows]
    tokenizer = open_parts(settings, ()).reading_tokenizer()
    return sum(lost > 0 for lost in tokens_lost(tokenizer, texts))


def _temporaries(folder: Path) -> list[Path]:
    return [path for pattern in (".*.tmp", "*/.*.tmp") for path in folder.glob(pattern)]


def _check(shard: Shard, latents: tuple[int, int, int]) -> None:
    check_rows(shard)
    if shard.header.kind == "latents" and shard.shapes() != (latents, latents):
        raise FormatError(f"{shard.path}: latents of {shard.shapes()[0]}, the spec's tiles have {latents}")


def _require_current(folder: Path, plan: Plan) -> None:
    header = read_header(folder)
    require_equal(header.spec, plan.dataset.spec, str(folder), str(plan.dataset.folder))
    if header.identity != plan.identity:
        other = [part for part in plan.identity if header.identity.get(part) != plan.identity[part]]
        raise MismatchError(
            f"{folder}: made with another {' and '.join(other)}; run sdxl-mel cache to bring it up to date"
        )
    missing = {shard.name for shard in plan.shards} - set(header.shards)
    if missing:
        raise MismatchError(
            f"{folder}: pictures, captions or settings changed since ({len(missing)} shards are out of date); run "
            "sdxl-mel cache to bring it up to date"
        )

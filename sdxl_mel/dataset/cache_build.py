"""Make the shards that are missing, in one process or several, and vouch for all of them at the end."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdxl_mel.dataset.cache_maintenance import orphans, sweep
from sdxl_mel.dataset.cache_plan import Plan, Settings, ShardPlan, make_plan, open_parts
from sdxl_mel.dataset.cache_report import Report
from sdxl_mel.dataset.read_ahead import read_ahead
from sdxl_mel.errors import FormatError, MismatchError, ResourceError
from sdxl_mel.files.atomic import clear_os_errors
from sdxl_mel.files.cache import CacheHeader, latent_shape, write_cache
from sdxl_mel.files.cache_shards import Shard, ShardHeader, check_rows, read_shard, write_shard
from sdxl_mel.files.spectrogram import read_tile
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.progress import Ticker, log, muted, progress
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

if TYPE_CHECKING:
    import torch

TEXT_BATCH = 32
Row = tuple[str, str]
Encoded = tuple["torch.Tensor", "torch.Tensor"]


@dataclass(frozen=True)
class Encoder:
    """How rows of one kind are made: `read` a label's input, `encode` a batch of them, `batch` at a time."""

    read: Callable[[str], Any]
    encode: Callable[[Sequence[Any], Sequence[str]], Encoded]
    batch: int


def build(folder: Path, settings: Settings, device: str | None = None) -> Report:
    """Make a cache in `folder`, or bring one up to date; several processes started by accelerate share the work.

    Whole shards of an interrupted run are kept. Raises FormatError, InputError and ResourceError as their causes do.
    """
    from accelerate import PartialState

    state = PartialState()
    with muted(not state.is_main_process), clear_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(settings)
    if state.is_main_process:
        sweep(folder)
    found, damaged = existing_shards(folder)
    todo = [shard for shard in plan.shards if not _is_made(shard, found.get(folder / shard.name))]
    rows = reusable_rows(found.values(), {key for shard in todo for key, _ in shard.rows})
    # Nobody writes before everybody has looked, so all processes deal the same shards.
    state.wait_for_everyone()
    mine = todo[state.process_index :: state.num_processes]
    for kind in ("latents", "text"):
        shards = [shard for shard in mine if shard.kind == kind]
        missing = _count_missing(shards, rows)
        encoder = _encoder(kind, settings, plan, device or str(state.device)) if missing else None
        with progress(missing, f"caching {kind}", "rows") as ticker:
            make_shards(folder, shards, rows, encoder, ticker)
    state.wait_for_everyone()
    if state.is_main_process:
        write_cache(folder, header_of(plan, settings), plan.splits)
    state.wait_for_everyone()
    return Report(
        pictures=plan.count("latents"),
        texts=plan.count("text"),
        encoded_pictures=_count_missing([shard for shard in todo if shard.kind == "latents"], rows),
        encoded_texts=_count_missing([shard for shard in todo if shard.kind == "text"], rows),
        damaged=len(damaged),
        orphans=len(orphans(folder)),
        too_long=_too_long(settings, plan),
    )


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


def header_of(plan: Plan, settings: Settings) -> CacheHeader:
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
    """Write each shard when its last missing row is encoded; rows that an older shard holds are copied from it."""
    batches = _batches(shards, rows, encoder.batch) if encoder else iter(())
    fresh: dict[str, Encoded] = {}
    waiting = list(shards)
    encoded = read_ahead(batches, encoder.read) if encoder else iter(())
    for batch, inputs in encoded:
        assert encoder is not None
        first, second = _within_memory(encoder, inputs, [label for _, label in batch])
        fresh |= {key: (first[index], second[index]) for index, (key, _) in enumerate(batch)}
        while waiting and all(key in fresh or key in rows for key, _ in waiting[0].rows):
            _write(folder, waiting.pop(0), rows, fresh)
        ticker.advance(len(batch))
    for shard in waiting:
        _write(folder, shard, rows, fresh)


def _within_memory(encoder: Encoder, inputs: Sequence[Any], labels: Sequence[str]) -> Encoded:
    import torch

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
    import torch

    keys = [key for key, _ in shard.rows]
    pairs = [fresh.pop(key) if key in fresh else rows[key][0].row(rows[key][1]) for key in keys]
    labels = tuple(label for _, label in shard.rows) if shard.kind == "text" else ()
    header = ShardHeader(kind=shard.kind, about=shard.about, keys=tuple(keys), labels=labels)
    write_shard(folder / shard.name, header, *(torch.stack(part) for part in zip(*pairs)))


def _encoder(kind: str, settings: Settings, plan: Plan, device: str) -> Encoder:
    if kind == "text":
        return _text_encoder(settings, device)
    return picture_encoder(open_parts(settings, ("vae",), device).vae, plan.dataset.spec, settings.batch_pixels)


def picture_encoder(vae: Any, spec: MelSpec, batch_pixels: int) -> Encoder:
    """Return the encoder of tiles with a VAE; it raises MismatchError if the VAE's latents are of another size."""
    from sdxl_mel.models.vae import encode, images_of

    def encode_pictures(pictures: Sequence[Any], names: Sequence[str]) -> Encoded:
        mean, logvar = encode(vae, images_of(np.stack(pictures), spec.low_at), names)
        if tuple(mean.shape[1:]) != latent_shape(spec):
            found, expected = tuple(mean.shape[1:]), latent_shape(spec)
            raise MismatchError(f"the VAE makes latents of {found} from pictures of {spec.size}, not {expected}")
        return mean, logvar

    width, height = spec.size
    batch = _batch_size(vae.device, max(1, batch_pixels // (width * height)))
    return Encoder(lambda label: read_tile(Path(label), spec), encode_pictures, batch)


def _batch_size(device: "torch.device", wanted: int) -> int:
    """Return 1 on a CPU: no slower there, and a row's last bits then depend on nothing but its own input."""
    return 1 if device.type == "cpu" else wanted


def _text_encoder(settings: Settings, device: str) -> Encoder:
    import torch

    from sdxl_mel.models.text_encoding import encode_prompts

    base = open_parts(settings, TEXT_ENCODERS, device)

    def encode_texts(texts: Sequence[str], _names: Sequence[str]) -> Encoded:
        with torch.no_grad():
            prompt_embeds, pooled = encode_prompts(base, texts, settings.clip_skip)
        return prompt_embeds.to("cpu", torch.float32), pooled.to("cpu", torch.float32)

    return Encoder(lambda label: label, encode_texts, _batch_size(base.text_encoder.device, TEXT_BATCH))


def _too_long(settings: Settings, plan: Plan) -> int:
    from sdxl_mel.models.text_encoding import tokens_lost

    texts = [label for shard in plan.shards if shard.kind == "text" for _, label in shard.rows]
    tokenizer = open_parts(settings, ()).reading_tokenizer()
    return sum(lost > 0 for lost in tokens_lost(tokenizer, texts))

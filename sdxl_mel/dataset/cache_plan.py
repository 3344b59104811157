"""What a cache of a dataset holds: the keys of all rows, and which shard each lies in, before anything is encoded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdxl_mel.captions.variants import caption_variants
from sdxl_mel.dataset.settings import SHARD_BYTES, CacheSettings
from sdxl_mel.errors import InputError
from sdxl_mel.execution import map_jobs
from sdxl_mel.files.cache import CachedExample, Kind, example_key, latent_shape, latents_key, shard_name, text_key
from sdxl_mel.files.dataset import Dataset, Item, read_dataset
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import Part
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.melspec import MelSpec, require_equal

SHUFFLED_SPLITS = ("train", "regularization")
READERS = 4


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its rows are keys with their label, the path of a picture or the words of a text."""

    kind: Kind
    about: dict[str, str]
    rows: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Return the path of the shard in the cache."""
        return f"{self.kind}/{shard_name(self.kind, self.about, [key for key, _ in self.rows])}"


@dataclass(frozen=True)
class Plan:
    """All of a cache but its rows."""

    dataset: Dataset
    identity: dict[str, str]
    scaling_factor: float
    empty_text: str
    splits: dict[str, list[CachedExample]]
    shards: tuple[ShardPlan, ...]

    def count(self, kind: Kind) -> int:
        """Return the number of rows of a kind."""
        return sum(len(shard.rows) for shard in self.shards if shard.kind == kind)


def make_plan(settings: CacheSettings) -> Plan:
    """Read a dataset and the hashes of a base, and lay out the cache.

    Raises MismatchError if the base was made for pictures of another spec, InputError for an unknown or empty split.
    """
    dataset = read_dataset(settings.dataset)
    chosen = _chosen_splits(dataset, settings.splits)
    base = open_parts(settings, ())
    if base.spec is not None:
        require_equal(base.spec, dataset.spec, settings.base, str(settings.dataset))
    text_parts = [encoder.part for encoder in base.family.text_encoders]
    identity = {"vae": base.latents_identity} | {str(part): base.identity_of(part) for part in text_parts}
    items = [item for items in chosen.values() for item in items]
    if not items:
        raise InputError(f"{settings.dataset}: no clips to encode; run sdxl-mel prepare on some sound")
    pictures = _picture_keys(dataset, items, identity["vae"])
    encoders = [identity[part] for part in text_parts]
    texts: dict[str, str] = {}

    def key_of_text(text: str) -> str:
        return texts.setdefault(text, text_key(text, encoders, settings.clip_skip))

    empty = key_of_text("")
    splits = {
        split: [
            _example(item, pictures, [key_of_text(text) for text in _variants(item, split, dataset.anchor, settings)])
            for item in members
        ]
        for split, members in chosen.items()
    }
    paths = {key: str(dataset.folder / file) for file, key in pictures.items()}
    about_latents = {"spec": dataset.spec.to_json(), "vae": identity["vae"]}
    about_text = {part: identity[part] for part in text_parts} | {"clip_skip": str(settings.clip_skip)}
    shards = [
        *deal_shards("latents", about_latents, paths.items(), latent_bytes(dataset.spec), settings.shard_bytes),
        *deal_shards(
            "text", about_text, ((key, text) for text, key in texts.items()), _text_bytes(base), settings.shard_bytes
        ),
    ]
    scaling = float((base.vae_source.config("vae") or {}).get("scaling_factor", 0.18215))
    return Plan(dataset, identity, scaling, empty, splits, tuple(shards))


def open_parts(settings: CacheSettings, parts: Sequence[Part], device: str = "cpu") -> Base:
    """Open parts of the base that the settings name."""
    return open_base(settings.base, parts, vae=settings.vae, device=device, config=settings.base_config)


def _chosen_splits(dataset: Dataset, wanted: Sequence[str]) -> dict[str, list[Item]]:
    unknown = sorted(set(wanted) - set(dataset.splits))
    if unknown:
        known = ", ".join(dataset.splits)
        raise InputError(f"{dataset.folder}: has no split {', '.join(map(repr, unknown))}; --splits takes {known}")
    return {split: items for split, items in dataset.splits.items() if not wanted or split in wanted}


def _picture_keys(dataset: Dataset, items: Sequence[Item], vae: str) -> dict[str, str]:
    files = list(dict.fromkeys(file for item in items for file in item.offset_files))
    hashes = map_jobs(sha256_file, (dataset.folder / file for file in files), workers=READERS)
    return {file: latents_key(digest, vae) for file, digest in zip(files, hashes)}


def _example(item: Item, pictures: Mapping[str, str], captions: Sequence[str]) -> CachedExample:
    offsets = tuple(pictures[file] for file in item.offset_files)
    return CachedExample(
        key=example_key(offsets),
        source=item.file,
        track=item.track,
        weight=item.weight,
        repeats=item.repeats,
        group=item.group,
        offsets=offsets,
        captions=tuple(captions),
    )


def _variants(item: Item, split: str, anchor: str, settings: CacheSettings) -> list[str]:
    count = settings.variants if split in SHUFFLED_SPLITS else 1
    listed = (text for caption in item.captions for text in caption_variants(caption, anchor, count, settings.seed))
    return list(dict.fromkeys(listed))


def deal_shards(
    kind: Kind, about: dict[str, str], rows: Iterable[tuple[str, str]], row_bytes: int, shard_bytes: int = SHARD_BYTES
) -> list[ShardPlan]:
    """Deal rows to shards by their keys, so that a change touches few shards and the order of the clips none."""
    unique = sorted(dict(rows).items())
    most = max(1, shard_bytes // row_bytes)
    count = 1 << max(0, (len(unique) - 1) // most).bit_length()
    dealt: dict[int, list[tuple[str, str]]] = {}
    for key, label in unique:
        dealt.setdefault(int(key[:12], 16) % count, []).append((key, label))
    return [ShardPlan(kind, about, tuple(dealt[index])) for index in sorted(dealt)]


def latent_bytes(spec: MelSpec) -> int:
    """Return the size of the latents of one picture in a shard."""
    channels, height, width = latent_shape(spec)
    return 2 * 4 * channels * height * width


def _text_bytes(base: Base) -> int:
    configs = [base.source.config(encoder.part) for encoder in base.family.text_encoders]
    return sum(4 * config["hidden_size"] * config["max_position_embeddings"] for config in configs if config)

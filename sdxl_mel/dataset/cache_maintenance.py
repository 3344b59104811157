"""Keep a cache honest: check every byte, find and delete what no clip uses."""

from pathlib import Path

from sdxl_mel.dataset.cache_plan import Plan, Settings, make_plan
from sdxl_mel.dataset.cache_report import Report
from sdxl_mel.errors import FormatError, MismatchError
from sdxl_mel.files.cache import HEADER_NAME, latent_shape, open_cache, read_header
from sdxl_mel.files.cache_shards import Shard, check_rows
from sdxl_mel.progress import track
from sdxl_mel.sound.melspec import require_equal


def verify(folder: Path, settings: Settings | None = None) -> Report:
    """Check that a cache is complete, that every row is what was written, and finite, and of the right shape.

    With `settings` also that it is what they and the dataset would make now. Raises FormatError or MismatchError that
    says how much is wrong and names the first.
    """
    cache = open_cache(folder)
    shards = list(dict.fromkeys(shard for shard, _ in cache.rows.values()))
    problems = []
    for shard in track(shards, len(shards), "verifying", "shards"):
        try:
            _check(shard, latent_shape(cache.spec))
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
    return Report(action="verify", pictures=counts["pictures"], texts=counts["texts"], orphans=len(orphans(folder)))


def prune(folder: Path) -> Report:
    """Delete the shards that no clip of the finished cache uses, and what killed runs left behind."""
    counts = read_header(folder).counts
    open_cache(folder)
    unused = orphans(folder)
    freed = sum(path.stat().st_size for path in unused)
    for path in unused:
        path.unlink()
    return Report(
        action="prune", pictures=counts["pictures"], texts=counts["texts"], orphans=len(unused), freed_bytes=freed
    )


def orphans(folder: Path) -> list[Path]:
    """Return the shards that cache.json does not list and the temporary files of killed runs."""
    listed = set(read_header(folder).shards) if (folder / HEADER_NAME).is_file() else set()
    shards = [path for path in folder.glob("*/*.safetensors") if path.relative_to(folder).as_posix() not in listed]
    return sorted([*shards, *_temporaries(folder)])


def sweep(folder: Path) -> None:
    """Delete the temporary files of killed runs."""
    for path in _temporaries(folder):
        path.unlink(missing_ok=True)


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

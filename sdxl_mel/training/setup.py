"""Opening what a run needs, and refusing what does not belong together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from sdxl_mel.errors import InputError, MismatchError
from sdxl_mel.files.cache import Cache, CachedExample
from sdxl_mel.files.run import RunHeader, is_run, read_run
from sdxl_mel.models.base import Base, open_base
from sdxl_mel.models.family import TEXT_ENCODERS
from sdxl_mel.models.lora.file import Lora
from sdxl_mel.sound.melspec import require_equal
from sdxl_mel.training.batches import Diffusion
from sdxl_mel.training.settings import Config

SPLITS = ("train", "validation", "regularization")
FREE_TO_CHANGE = {"out", "resume", "resume_with_changes", "dry_run", "push_to_hub", "save_every", "keep", "trackers"}
"""Settings that do not alter what is learnt."""


def open_parts(config: Config, dtype: torch.dtype) -> Base:
    """Open what training needs of the base: the UNet, and the text encoders if they are trained."""
    encoders = TEXT_ENCODERS if config.adapter.text_encoders else ()
    return open_base(config.base, ("unet", *encoders), dtype, vae=config.vae)


def identity_of(base: Base) -> dict[str, str]:
    """Return the hashes of all parts, opened or not."""
    own: dict[str, str] = {part: base.identity_of(part) for part in base.family.parts if part != "vae"}
    return own | {"vae": base.identity_of("vae")}


def open_splits(config: Config, cache: Cache) -> dict[str, list[CachedExample]]:
    """Return the splits that the run reads. Raises InputError for one that is empty and needed."""
    splits = {split: list(cache.examples(split)) for split in SPLITS}
    needed = {
        "train": "there is nothing to train on",
        "validation": "validation.patience needs held-out tracks" if config.validation.patience else "",
        "regularization": "regularization.share needs it" if config.regularization.share else "",
    }
    for split, reason in needed.items():
        if reason and not splits[split]:
            raise InputError(
                f"{config.cache}: its split {split!r} is empty: {reason}; prepare the dataset with one, and cache it"
            )
    return splits


def require_fit(config: Config, base: Base, identity: Mapping[str, str], cache: Cache) -> None:
    """Raise MismatchError unless the cache was made with this base, for the pictures it makes."""
    cache.require_identity(identity, config.base)
    if base.spec is not None:
        require_equal(base.spec, cache.spec, f"base {config.base}", f"cache {config.cache}")


def diffusion_of(base: Base) -> Diffusion:
    """Return the base's noise schedule. Raises InputError for one that cannot be trained as it stands."""
    alphas, prediction = base.scheduler.alphas_cumprod.double(), base.scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"{base.name}: predicts {prediction!r}; epsilon and v_prediction can be trained")
    if prediction == "epsilon" and float(alphas[-1]) < 1e-6:
        raise InputError(
            f"{base.name}: zero terminal SNR with epsilon prediction has no image to learn from at the last step"
        )
    return Diffusion(alphas, prediction)


def require_start(lora: Lora, path: Path, cache: Cache, identity: Mapping[str, str]) -> None:
    """Raise MismatchError unless a LoRA to start from belongs to this base and spec."""
    if lora.header.spec is not None:
        require_equal(lora.header.spec, cache.spec, str(path), "the cache")
    other = [part for part, made_for in lora.header.base.items() if identity.get(part) != made_for]
    if other:
        raise MismatchError(f"{path}: trained on another {' and '.join(other)}; give the base it was trained on")


def claim_folder(config: Config) -> RunHeader | None:
    """Return what a run to be resumed says of itself, None for a new one. Raises InputError rather than overwrite."""
    folder = config.out
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    wants = config.resume or config.resume_with_changes
    if not is_run(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: has files in it that are no run; give another --out")
        return None
    if not wants:
        raise InputError(
            f"{folder}: there is a run in it already; --resume continues it, another --out starts a new one"
        )
    return read_run(folder)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, JsonValue]:
    """Return the settings that differ and matter, as {name: [before, now]}."""
    changes: dict[str, JsonValue] = {}
    for name in sorted({*before, *now}):
        one, two = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            changes |= changed_settings(one, two, f"{prefix}{name}.")
        elif one != two and not (not prefix and name in FREE_TO_CHANGE):
            changes[prefix + name] = [one, two]
    return changes


def require_unchanged(config: Config, changes: Mapping[str, Any]) -> None:
    """Raise MismatchError that lists what changed, unless it was meant."""
    if changes and not config.resume_with_changes:
        listed = ", ".join(f"{name} {before!r} -> {now!r}" for name, (before, now) in changes.items())
        raise MismatchError(
            f"{config.out}: settings changed since it was started: {listed}; "
            "take them back, or give --resume-with-changes, which records them"
        )


def default_prompts(cache: Cache, clips: Sequence[CachedExample], count: int) -> list[str]:
    """Return the text keys of the captions of `count` clips, spread over them."""
    chosen = [clips[len(clips) * index // count] for index in range(min(count, len(clips)))]
    return [clip.captions[0] for clip in chosen]

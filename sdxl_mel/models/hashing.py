"""Weights in safetensors files: their hash, and quiet loading."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sdxl_mel.errors import FormatError

if TYPE_CHECKING:
    import torch


def hash_files(paths: Sequence[Path]) -> str:
    """Return the hash of the tensors in safetensors files together; remembered while the files do not change."""
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _hash_files(stamps)


def hash_tensors(tensors: Iterable[tuple[str, "torch.Tensor"]]) -> str:
    """Return the SHA-256 of named tensors: names in order, kinds, shapes and bytes.

    Names are those of diffusers; `text_model.` and the buffer `position_ids`, which come and go between versions of
    transformers, do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted((name.removeprefix("text_model."), tensor) for name, tensor in tensors):
        if not name.endswith("position_ids"):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes_of(tensor))
    return digest.hexdigest()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars and warnings of diffusers and transformers: whatever they would warn of is checked here."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    both = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in both]
    for library in both:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (level, had_bar) in zip(both, before):
            library.set_verbosity(level)
            if had_bar:
                library.enable_progress_bar()


@lru_cache(maxsize=16)
def _hash_files(stamps: tuple[tuple[str, int, int], ...]) -> str:
    return hash_tensors((name, tensor) for path, _, _ in stamps for name, tensor in tensors_of(Path(path)))


def tensors_of(path: Path, prefix: str = "") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield the tensors of a safetensors file whose names start with `prefix`, memory-mapped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.startswith(prefix):
                    yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error}); copy it again") from error


def header_of(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shape of every tensor of a safetensors file, and its metadata, without reading a tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error}); copy it again") from error


def _bytes_of(tensor: "torch.Tensor") -> bytes | memoryview:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

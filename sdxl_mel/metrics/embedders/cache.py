"""Embeddings on disk, addressed by content: one safetensors file for each model, a tensor for each sound.

The key of a sound is the SHA-256 of its bytes and of how it was decoded, so a changed clip is a new key and a stale
entry cannot be used. What is damaged is reported and computed again.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sdxl_mel.arrays import Float
from sdxl_mel.files.atomic import write_bytes
from sdxl_mel.progress import log
from sdxl_mel.record import sha256_bytes

FORMAT = "1"


class EmbeddingCache:
    """The window vectors (windows, d) of sounds for one embedder; `identity` is all that decides them."""

    def __init__(self, folder: Path, name: str, identity: Mapping[str, str]) -> None:
        text = "\n".join(f"{key}={value}" for key, value in sorted({"format": FORMAT, **identity}.items()))
        self._identity = {"identity": text}  # one key: safetensors writes several in any order
        self.path = folder / f"{name}-{sha256_bytes(text.encode())[:16]}.safetensors"
        self._known = self._load()
        self._unsaved = 0

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Float:
        return self._known[key]

    def __setitem__(self, key: str, windows: Float) -> None:
        self._known[key] = np.ascontiguousarray(windows, dtype=np.float32)
        self._unsaved += 1

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if self._unsaved:
            write_bytes(self.path, save(dict(sorted(self._known.items())), metadata=self._identity))
            self._unsaved = 0

    def _load(self) -> dict[str, Float]:
        if not self.path.exists():
            return {}
        try:
            with safe_open(self.path, framework="numpy") as file:
                if file.metadata() != self._identity:
                    raise ValueError("it belongs to another model")
                known = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError, ValueError) as error:
            log(f"{self.path}: this cache is damaged ({error}) and is made again")
            return {}
        return {key: windows for key, windows in known.items() if _plausible(windows)}


def _plausible(windows: Float) -> bool:
    whole = windows.ndim == 2 and windows.size > 0 and windows.dtype == np.float32
    return whole and bool(np.isfinite(windows).all())

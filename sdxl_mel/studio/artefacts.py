"""Everything of a project that lies below its root, by ids: a page never names a path.

An id is made from the path below the root, so it stays the same for as long as the thing stays where it is.
"""

import hashlib
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.errors import InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.header import parse_json
from sdxl_mel.studio.forms import Kind

HEADERS: dict[str, Kind] = {
    "run.json": "run",
    "dataset.json": "dataset",
    "cache.json": "cache",
    "metrics.json": "evaluation",
    "comparison.txt": "comparison",
    "model_index.json": "base",
    "manifest.json": "results",
    "ab.html": "folder",
}
"""The file that marks a folder as an artefact."""
WHOLE: frozenset[Kind] = frozenset({"dataset", "cache", "base", "evaluation", "comparison"})
"""Folders of which only the whole is an artefact."""
SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys(AUDIO_SUFFIXES, "sound"),
    ".png": "picture",
    ".csv": "table",
    ".tsv": "table",
    ".txt": "table",
    ".jsonl": "table",
    ".toml": "config",
}
LEFT_OUT = {"node_modules", "__pycache__"}
"""Folders in which nothing is looked for, besides those whose names begin with a dot or an underscore."""
FOLDER = "studio"
"""The folder of the studio itself, in which only its results and what was given to it are artefacts."""
STATES = "state"
"""The folder of a run in which the states of its training lie."""
DEEPEST = 6
MOST = 20_000
REST = 10
"""For an id that nobody has it is looked anew below the root, but not before so many times as long as that took."""
MOST_HEADER_BYTES = 1 << 26
LORA_MARKS = (".lora_", "lora_unet", "lora_te", ".lora.", "_lora.")
Stat = tuple[int, int]


@dataclass(frozen=True)
class Artefact:
    """A file or folder of the project: `name` is its path below the root."""

    id: str
    kind: Kind
    name: str
    bytes: int
    modified: float


class Artefacts:
    """What is below a root; `find` looks, and remembers what the ids stand for."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._known: dict[str, Artefact] = {}
        self._look_again = 0.0
        self._weights: dict[tuple[str, Stat], Kind | None] = {}

    def find(self) -> list[Artefact]:
        """Return every artefact, the newest first."""
        began = time.monotonic()
        found = sorted(self._walk(), key=lambda each: (-each.modified, each.name))
        self._known = {each.id: each for each in found}
        ended = time.monotonic()
        self._look_again = ended + REST * (ended - began)
        return found

    def changed(self) -> None:
        """Say that there may be something new, so that an id that is not known is looked for at once."""
        self._look_again = 0.0

    def get(self, identifier: str) -> Artefact:
        """Return an artefact by its id. Raises InputError where there is none, or none any more."""
        known = self._known.get(identifier)
        gone = known is not None and not self.path(known).exists()
        if gone or (known is None and time.monotonic() >= self._look_again):
            self.find()
        if identifier not in self._known:
            raise InputError(f"{identifier}: nothing below the root has this id (any more); choose another")
        return self._known[identifier]

    def path(self, artefact: Artefact) -> Path:
        """Return where an artefact lies. Raises InputError for what is not below the root (any more)."""
        return self.below(artefact.name)

    def below(self, name: str) -> Path:
        """Return a path below the root, whatever its links lead to. Raises InputError for one that leads out of it."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise InputError(f"{name}: not below the root of the studio")
        return path

    def identifier(self, path: Path) -> str:
        """Return the id of a path below the root."""
        return id_of_name(path.relative_to(self.root).as_posix())

    def stated(self, setting: str, value: str) -> str:
        """Return the path below the root that a form means: `id:ID`, or `id:ID:SCALE` of a LoRA.

        A base may also be a name: that of the embedded base, or of one that the hub's cache holds. Raises InputError
        for all else, so that no path comes in from a page.
        """
        word, _, rest = value.partition(":")
        if word == "id":
            identifier, _, scale = rest.partition(":")
            name = self.get(identifier).name
            return f"{name}:{scale}" if scale else name
        if setting in ("base", "vae", "clap") and _is_hub_name(value) and not (self.root / value).exists():
            return value
        raise InputError(f"{setting}: found {value!r}; expected id:ID of something below the root")

    def _walk(self) -> Iterator[Artefact]:
        count = 0
        for place, folders, files in os.walk(self.root):
            here = Path(place)
            depth = len(here.relative_to(self.root).parts)
            kind = next((HEADERS[name] for name in files if name in HEADERS), None) if depth else None
            left_out = {*LEFT_OUT, STATES} if kind == "run" else LEFT_OUT
            folders[:] = sorted(name for name in folders if not name.startswith((".", "_")) and name not in left_out)
            if kind in WHOLE or depth >= DEEPEST:
                folders.clear()
            sounds = False
            whole = kind in WHOLE or here == self.root / FOLDER
            for name in sorted(files) if not whole else ():
                path = here / name
                found = None if name.startswith(".") else self._kind_of(path)
                if found is not None and path.resolve().is_relative_to(self.root):
                    sounds = sounds or found in ("sound", "picture")
                    yield self._artefact(path, found)
                    count += 1
            if depth and (kind is not None or sounds):
                yield self._artefact(here, kind or "folder")
            if count > MOST:
                return

    def _kind_of(self, path: Path) -> Kind | None:
        suffix = path.suffix.lower()
        if suffix == ".safetensors":
            try:
                stat = path.stat()
            except OSError:
                return None
            key = (str(path), (stat.st_size, stat.st_mtime_ns))
            if key not in self._weights:
                self._weights[key] = kind_of_weights(path)
            return self._weights[key]
        return None if path.name in HEADERS else SUFFIXES.get(suffix)

    def _artefact(self, path: Path, kind: Kind) -> Artefact:
        name = path.relative_to(self.root).as_posix()
        stat = path.lstat()
        return Artefact(id_of_name(name), kind, name, stat.st_size if path.is_file() else 0, stat.st_mtime)


def id_of_name(name: str) -> str:
    """Return the id of what has this path below the root."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def kind_of_weights(path: Path) -> Kind | None:
    """Return whether a safetensors file holds a LoRA or a base, by the names of its tensors; None for neither."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            names = list(parse_json(file.read(length))) if length <= MOST_HEADER_BYTES else []
    except (OSError, ValueError, struct.error):
        return None
    if any(mark in name for name in names for mark in LORA_MARKS):
        return "lora"
    return "base" if any(name.startswith("model.diffusion_model.") for name in names) else None


def _is_hub_name(value: str) -> bool:
    """Return whether a text is "mini" or the name of a model on a hub, and no path that leads anywhere else."""
    owner, _, name = value.partition("/")
    plain = value.replace("/", "", 1).replace("-", "").replace("_", "").replace(".", "")
    return value == "mini" or (plain.isalnum() and bool(owner.strip(".")) and bool(name.strip(".")))

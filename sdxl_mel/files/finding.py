"""Files in folders: those that a command can use, those that only look like it, and the one that a text names."""

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sdxl_mel.config import Skipped
from sdxl_mel.errors import InputError
from sdxl_mel.files.dataset import is_inside
from sdxl_mel.files.results import listed, lost_results

OTHER_MUSIC_SUFFIXES = frozenset(
    [".m4a", ".m4b", ".aac", ".wma", ".ape", ".alac", ".wv", ".tta", ".mpc", ".mka", ".mp2", ".amr", ".ra", ".dsf"]
    + [".dff", ".mp4", ".webm", ".mid", ".midi"]
)
"""Of files that hold music, in a form that is not read."""

LOSSY_SUFFIXES = frozenset([".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
"""Of pictures in a form that is not read."""


@dataclass
class Found:
    """What a folder holds, in order of name: `usable` files, `unusable` ones with the reason, hidden ones, the rest."""

    usable: list[Path] = field(default_factory=list)
    unusable: list[Skipped] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_files(folder: Path, suffixes: Collection[str], without: Path | None = None) -> Found:
    """Sort the files under a folder by their extension, lower case in `suffixes`; the folder `without` is left out.

    Named as unusable are links to nothing, links to folders, folders that cannot be opened, and music in other forms.
    """
    found = Found()

    def unusable(path: Path, why: str) -> None:
        found.unusable.append(Skipped(what=path.relative_to(folder).as_posix(), why=why))

    def unopened(error: OSError) -> None:
        unusable(Path(error.filename), f"a folder that cannot be opened ({error.strerror})")

    paths: list[Path] = []
    out = without.resolve() if without is not None else None
    for place, folders, names in os.walk(folder, onerror=unopened):
        paths += [Path(place, name) for name in names]
        paths += [path for path in (Path(place, name) for name in folders) if path.is_symlink()]
        folders[:] = [name for name in folders if Path(place, name).resolve() != out]
    for path in sorted(paths):
        suffix = path.suffix.lower()
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            found.hidden += [path] if suffix in suffixes else []
        elif path.is_dir():
            unusable(path, "a link to a folder, which is not followed; give that folder itself")
        elif suffix in OTHER_MUSIC_SUFFIXES:
            unusable(path, f"{suffix} is not read; convert it to WAV or FLAC")
        elif suffix not in suffixes:
            found.others.append(path)
        elif path.is_file():
            found.usable.append(path)
        else:
            unusable(path, "a link to a file that does not exist" if path.is_symlink() else "not a file")
    return found


def files_given(given: Sequence[Path], suffixes: Collection[str], kind: str) -> tuple[list[Path], list[Skipped]]:
    """Return the files that a command line names, of folders those in them, and what of the folders is left out.

    `kind` is a word for them ("sounds"). Raises InputError for a folder without any.
    """
    files: list[Path] = []
    left_out: list[Skipped] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        found = find_files(path, suffixes)
        usable = listed([file for file in found.usable if file.parent == path])
        if not usable:
            raise InputError(f"{path}: no {kind} in this folder ({' '.join(sorted(suffixes))})")
        files += usable
        lossy = [file.name for file in found.others if ".png" in suffixes and file.suffix.lower() in LOSSY_SUFFIXES]
        deeper = sorted({str(file.parent) for file in found.usable} - {str(path)})
        left_out += found.unusable + lost_results(path, suffixes)
        left_out += [Skipped(what=name, why="only PNG keeps every level; give the original PNG") for name in lossy]
        left_out += [Skipped(what=name, why="a folder inside; give it too") for name in deeper]
    return files, left_out


def tile_paths(given: Sequence[Path], leave_out: Sequence[Path] = ()) -> tuple[list[Path], list[Skipped]]:
    """Return the pictures named in `given`, of a folder its PNGs, 2.png before 10.png, and what of it is left out.

    `leave_out` are pictures that may lie in such a folder and are no tiles. Raises InputError for a folder without any.
    """
    others = {path.resolve() for path in leave_out}
    paths: list[Path] = []
    left_out: list[Skipped] = []
    for place in given:
        files, unusable = files_given([place], [".png"], "PNG pictures")
        inside = [path for path in files if not place.is_dir() or path.resolve() not in others]
        if not inside:
            raise InputError(f"{place}: no PNG pictures in this folder but the one to be written; give that of tiles")
        paths += sorted(inside, key=_natural)
        left_out += unusable
    return paths, left_out


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts runs of digits by their number."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def file_named(root: Path, name: str) -> Path | str:
    """Return the file under `root` that a text names, or the reason why there is none.

    Windows separators are understood, and names whose accents are composed otherwise than the text's.
    """
    if not name:
        return "no audio file is named"
    if Path(name).is_absolute() and "\0" not in name and Path(name).resolve().is_relative_to(root.resolve()):
        name = Path(name).resolve().relative_to(root.resolve()).as_posix()
    if not is_file(root / name):
        name = name.replace("\\", "/")
    if not is_inside(name.replace("\\", "/")):
        return f"{name!r} points outside {root.name or root}/; refused (move the audio there or set --audio-dir)"
    if is_file(root / name):
        return root / name
    path = root
    for part in PurePosixPath(name).parts:
        path = path / _names_in(path).get(composed(part), part)
    return path if is_file(path) else f"audio {name!r} is missing"


def is_file(path: Path) -> bool:
    """Say whether there is a file; under a name that is too long for the system there is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def composed(name: str) -> str:
    """Return a file's name in the form by which names are compared: accents composed (NFC)."""
    return unicodedata.normalize("NFC", name)


def _names_in(folder: Path) -> dict[str, str]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed(folder: Path, _mtime_ns: int) -> dict[str, str]:
    return {composed(path.name): path.name for path in folder.iterdir()}

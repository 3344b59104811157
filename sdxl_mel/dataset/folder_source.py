"""Sources that are folders: audio with side-car captions or tables of them, a saved `datasets` folder."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdxl_mel.config import Skipped
from sdxl_mel.dataset.table_source import ROLES, columns_of, table_source
from sdxl_mel.dataset.tracks import SPLIT_NAMES, ArrowRow, SourceList, described, listed
from sdxl_mel.errors import FormatError, InputError, printable
from sdxl_mel.files.audio import AUDIO_SUFFIXES
from sdxl_mel.files.dataset import is_dataset
from sdxl_mel.files.finding import composed, find_files, is_file
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.tables import TABLE_SUFFIXES, Table, read_text, text_lines, texts_in

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
ARROW_NAMES = ("dataset_dict.json", "state.json")
SIDE_CAR_SUFFIXES = (".json", ".txt", ".caption")
PACKED_SUFFIXES = (".parquet", ".xlsx", ".ods", ".zip", ".tar", ".gz", ".7z", ".rar")
DESCRIBING_SUFFIXES = {*TABLE_SUFFIXES, *SIDE_CAR_SUFFIXES, *PACKED_SUFFIXES}
"""Of files that may hold captions, or music inside."""


def folder_source(folder: Path, without: Path, stated: Mapping[str, str] | None) -> SourceList:
    """Read the music under a folder, that under `without` left out, and its captions.

    Captions stand in side-cars of the same name: `.txt` or kohya's `.caption`, a caption a line, or `.json` with the
    words of ROLES. With `stated` (names of columns by their role) first in the tables of a Hugging Face audiofolder,
    which may stand in any folder: what they do not name is read by its side-cars. A table that cannot be read is
    skipped, and with it the music in its folder that nothing else describes.
    """
    found = SourceList()
    files = find_files(folder, AUDIO_SUFFIXES, without)
    tables = [] if stated is None else metadata_tables(files.others)
    unread = [path for path in tables if not _add_table(found, folder, path, stated or {})]
    named = {composed(str(track.audio)) for track in found.tracks}
    describing = [path for path in files.others if path.suffix.lower() in DESCRIBING_SUFFIXES]
    texts = {_key(path, path.suffix): path for path in reversed(describing)}
    used: set[Path] = set(tables)
    for path in files.usable:
        if composed(str(path)) not in named:
            side_cars = [texts[key] for suffix in SIDE_CAR_SUFFIXES if (key := _key(path, suffix)) in texts]
            used.update(side_cars)
            table = next((table for table in unread if path.is_relative_to(table.parent)), None)
            if table is None or side_cars:
                _add_file(found, folder, path, side_cars)
            else:
                what, name = (printable(each.relative_to(folder).as_posix()) for each in (path, table))
                found.skipped.append(Skipped(what=what, why=f"{name}, which may describe it, cannot be read"))
    found.skipped += files.unusable
    _note(found, "hidden files are left out", folder, files.hidden)
    _note(found, "files beside the music describe none of it", folder, [x for x in describing if x not in used])
    return found


def metadata_tables(paths: Iterable[Path]) -> list[Path]:
    """Return the tables of an audiofolder among files; those of a prepared dataset, which list pictures, are none."""
    return [path for path in paths if path.name in METADATA_NAMES and not is_dataset(path.parent.parent)]


def _add_table(found: SourceList, folder: Path, path: Path, stated: Mapping[str, str]) -> bool:
    """Add what a table describes; return whether it could be read."""
    try:
        part = table_source(path, path.parent, stated, usual={"audio": "file_name"})
    except InputError as error:
        name = printable(path.relative_to(folder).as_posix())
        reason = str(error).replace(str(path), "").lstrip(":, ")  # A dataset holds no path of a machine.
        found.skipped.append(Skipped(what=name, why=reason))
        return False
    place = printable(path.parent.relative_to(folder).as_posix())
    prefix = "" if place == "." else f"{place}/"
    for track in part.tracks:
        found.add(replace(track, identifier=prefix + track.identifier), f"{prefix}{track.identifier} in {path.name}")
    found.skipped += [Skipped(what=prefix + each.what, why=each.why) for each in part.skipped]
    return True


def _add_file(found: SourceList, folder: Path, path: Path, side_cars: Sequence[Path]) -> None:
    name = printable(path.relative_to(folder).as_posix())
    try:
        side = _side_cars(side_cars)
    except (ValueError, InputError) as error:
        reason = str(error).replace(printable(f"{path.parent}{os.sep}"), "")  # A dataset holds no path of a machine.
        found.skipped.append(Skipped(what=name, why=f"its side-car cannot be read ({reason})"))
        return
    found.add(described(name, path, side), name)


def _side_cars(paths: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Return the texts of every role. Raises ValueError or InputError for a side-car that cannot be read."""
    roles: dict[str, tuple[str, ...]] = {}
    for path in paths:
        if path.suffix.lower() != ".json":
            roles["caption"] = (*roles.get("caption", ()), *(line for _, line in text_lines(read_text(path))))
            continue
        content = parse_json(read_text(path))
        if not isinstance(content, dict):
            raise ValueError(f"{path.name} is not a JSON object")
        for role, names in ROLES.items():
            values = [texts_in(content[name]) for name in names if name in content]
            roles[role] = tuple(dict.fromkeys(value for group in values for value in group))
    return roles


def _key(path: Path, suffix: str) -> tuple[Path, str, str]:
    """Return by what a side-car belongs to its music: folder and stem, however its accents are composed."""
    return path.parent, composed(path.stem), suffix.lower()


def _note(found: SourceList, what: str, folder: Path, paths: Sequence[Path]) -> None:
    if paths:
        found.notes.append(f"{len(paths)} {what}: {listed([path.relative_to(folder).as_posix() for path in paths])}")


def arrow_source(folder: Path, stated: Mapping[str, str]) -> SourceList:
    """Read what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; audio is decoded when it is needed.

    Splits and rows that cannot be read are skipped.
    """
    found = SourceList()
    places: dict[str, ArrowRow] = {}
    splits, found.skipped = load_arrow(folder)
    for name, rows in splits.items():
        columns = columns_of(Table(folder, tuple(rows.column_names)), stated, ("audio",))
        audio = columns.pop("audio")
        described_rows = rows.remove_columns([audio])
        for index in range(len(described_rows)):
            try:
                cells = described_rows[index]
            except ValueError as error:
                found.skipped.append(Skipped(what=f"row {index} of {name or folder.name}", why=f"damaged ({error})"))
                continue
            texts = {role: texts_in(cells.get(column)) for role, column in columns.items()}
            identifier = "".join(texts.get("id", ())[:1]) or f"{name}-{index:06d}"
            place = ArrowRow(folder, name, index, audio)
            if places.setdefault(identifier, place).split != name:  # The ids of a split may begin anew.
                identifier = f"{name}/{identifier}"
            known = places.setdefault(identifier, place)
            track = described(identifier, known if _same_audio(known, place) else place, texts)
            split = name if name.lower() in SPLIT_NAMES else track.split or name
            found.add(replace(track, split=split), f"row {index} of {name or folder.name}")
    return found


def _same_audio(one: ArrowRow, other: ArrowRow) -> bool:
    """Say whether two rows hold the same bytes, as those of a track with several captions do."""
    try:
        return one == other or arrow_bytes(one) == arrow_bytes(other)
    except InputError:
        return False


def load_arrow(folder: Path) -> tuple[dict[str, Any], list[Skipped]]:
    """Return the splits of a saved `datasets` folder with audio left as bytes, and those that cannot be read.

    Raises FormatError where none can be.
    """
    splits: dict[str, Any] = {}
    skipped: list[Skipped] = []
    for name in _split_names(folder):
        try:
            splits[name] = _arrow_rows(folder / name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = str(error).replace(f"{folder}{os.sep}", "")  # A dataset holds no path of a machine.
            skipped.append(Skipped(what=name or folder.name, why=f"not rows that datasets saved ({why})"))
    if not splits:
        raise FormatError(f"{folder}: not a folder that datasets saved: {skipped[0].why if skipped else 'no split'}")
    return splits, skipped


def _split_names(folder: Path) -> list[str]:
    """Return the names of the splits, "" for a folder that is one."""
    index = folder / ARROW_NAMES[0]
    if not index.is_file():
        return [""]
    try:
        return [str(name) for name in parse_json(index.read_bytes())["splits"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FormatError(f"{index}: not a list of splits ({error}); save the dataset again") from error


def _arrow_rows(folder: Path) -> Any:
    from datasets import Audio, load_from_disk

    rows = load_from_disk(str(folder))
    for column, feature in rows.features.items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(decode=False))
    return rows


def arrow_bytes(row: ArrowRow) -> bytes:
    """Return the encoded audio of a row. Raises InputError where there is only a path and it is gone."""
    cell = _arrow_rows(row.folder / row.split)[row.index][row.column]
    if isinstance(cell, dict) and cell.get("bytes"):
        return bytes(cell["bytes"])
    named = cell.get("path") if isinstance(cell, dict) else cell
    if not named:
        raise InputError(f"row {row.index}: holds no audio")
    path = row.folder / str(named)
    if not is_file(path):
        raise InputError(f"row {row.index}: its audio {path.name!r} is not in the folder")
    return path.read_bytes()

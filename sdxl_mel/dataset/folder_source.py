"""Sources that are folders: audio with side-car captions, a Hugging Face audiofolder, a saved `datasets` folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdxl_mel.config import Skipped
from sdxl_mel.dataset.table_source import ROLES, table_source, texts_in
from sdxl_mel.dataset.tracks import SPLIT_NAMES, ArrowRow, SourceList, SourceTrack
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.audio import AUDIO_SUFFIXES

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
ARROW_NAMES = ("dataset_dict.json", "state.json")


def audio_files(folder: Path, without: Path) -> Iterator[Path]:
    """Yield the audio files under a folder in order of name, leaving out hidden ones and those under `without`."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in AUDIO_SUFFIXES and not hidden and without not in path.parents and path.is_file():
            yield path


def folder_source(folder: Path, without: Path, uncaptioned: bool) -> SourceList:
    """Read audio with side-cars of the same name: `.txt`, a caption a line, or `.json` with the words of ROLES.

    `uncaptioned` keeps tracks without any caption; else they are skipped.
    """
    found = SourceList([])
    for path in audio_files(folder, without):
        name = path.relative_to(folder).as_posix()
        try:
            side = _side_cars(path)
        except (UnicodeDecodeError, ValueError, OSError) as error:
            found.skipped.append(Skipped(what=name, why=f"its side-car cannot be read ({error})"))
            continue
        captions = tuple(text for text in side.get("caption", ()) if text.strip())
        if not captions and not uncaptioned:
            why = f"no caption: no {path.stem}.txt or {path.stem}.json with one (--uncaptioned keeps it)"
            found.skipped.append(Skipped(what=name, why=why))
            continue
        artist = "".join(side.get("artist", ())[:1])
        found.tracks.append(
            SourceTrack(
                identifier=name,
                audio=path,
                captions=captions,
                tags=side.get("tags", ()),
                artist=artist,
                names=(artist,) if artist else (),
                licence="".join(side.get("licence", ())[:1]),
                split=SPLIT_NAMES.get("".join(side.get("split", ())[:1]).lower(), ""),
                instruments=side.get("instruments", ()),
            )
        )
    return found


def audiofolder_source(folder: Path, stated: Mapping[str, str]) -> SourceList:
    """Read a Hugging Face audiofolder: `metadata.csv` or `.jsonl` naming files, at the top or in a folder a split."""
    found = SourceList([])
    for path in sorted(path for name in METADATA_NAMES for path in folder.rglob(name)):
        part = table_source(path, path.parent, {"audio": "file_name"} | dict(stated))
        place = path.parent.relative_to(folder).as_posix()
        split = next((SPLIT_NAMES[name] for name in reversed(Path(place).parts) if name in SPLIT_NAMES), "")
        for track in part.tracks:
            identifier = track.identifier if place == "." else f"{place}/{track.identifier}"
            found.tracks.append(replace(track, identifier=identifier, split=track.split or split))
        found.skipped += part.skipped
    return found


def arrow_source(folder: Path, stated: Mapping[str, str]) -> SourceList:
    """Read what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; audio is decoded when it is needed."""
    splits = load_arrow(folder)
    found = SourceList([])
    for name, rows in splits.items():
        audio = stated.get("audio") or next((column for column in rows.column_names if column in ROLES["audio"]), "")
        if audio not in rows.column_names:
            raise FormatError(
                f"{folder}: no audio column among {', '.join(rows.column_names)}; state --columns audio=NAME"
            )
        columns = {role: next((c for c in names if c in rows.column_names), "") for role, names in ROLES.items()}
        columns |= stated
        for index, cells in enumerate(rows.remove_columns([audio])):
            texts = {role: texts_in(cells.get(column)) for role, column in columns.items() if column in cells}
            first = {role: "".join(values[:1]) for role, values in texts.items()}
            found.tracks.append(
                SourceTrack(
                    identifier=first.get("id") or f"{name}-{index:06d}",
                    audio=ArrowRow(folder, name, index, audio),
                    captions=texts.get("caption", ()),
                    tags=texts.get("tags", ()),
                    artist=first.get("artist", ""),
                    licence=first.get("licence", ""),
                    split=SPLIT_NAMES.get(name.lower(), ""),
                )
            )
    return found


def load_arrow(folder: Path) -> dict[str, Any]:
    """Return the splits of a saved `datasets` folder with audio left as bytes."""
    from datasets import Audio, Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise FormatError(f"{folder}: not a folder that datasets saved ({error})") from error
    splits = {"": loaded} if isinstance(loaded, Dataset) else dict(loaded)
    for name, rows in splits.items():
        for column, feature in rows.features.items():
            if isinstance(feature, Audio):
                splits[name] = splits[name].cast_column(column, Audio(decode=False))
    return splits


def arrow_bytes(row: ArrowRow) -> bytes:
    """Return the encoded audio of a row. Raises InputError where there is only a path and it is gone."""
    cell = load_arrow(row.folder)[row.split][row.index][row.column]
    if isinstance(cell, dict) and cell.get("bytes"):
        return bytes(cell["bytes"])
    path = row.folder / str(cell.get("path") if isinstance(cell, dict) else cell)
    if not path.is_file():
        raise InputError(f"row {row.index}: its audio {path.name!r} is not in the folder")
    return path.read_bytes()


def _side_cars(path: Path) -> dict[str, tuple[str, ...]]:
    text, described = path.with_suffix(".txt"), path.with_suffix(".json")
    roles: dict[str, tuple[str, ...]] = {}
    if described.is_file():
        content = json.loads(described.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError(f"{described.name} is not a JSON object")
        for role, names in ROLES.items():
            values = [texts_in(content[name]) for name in names if name in content]
            roles[role] = tuple(dict.fromkeys(value for group in values for value in group))
    if text.is_file():
        lines = text.read_text(encoding="utf-8-sig").splitlines()
        roles["caption"] = (*roles.get("caption", ()), *(line.strip() for line in lines if line.strip()))
    return roles

"""A prepared dataset on disk: a folder of tile PNGs a split, `metadata.jsonl` beside them, and one `dataset.json`.

    DIR/dataset.json                         the spec, the anchor, counts, what was skipped, the record
    DIR/{train,validation,test,regularization}/*.png
    DIR/{train,...}/metadata.jsonl           one row a clip
    DIR/{train,...}/offsets/*.png            the same clips at sub-latent time offsets, where asked for

`datasets.load_dataset("imagefolder", data_dir=DIR)` reads train, validation and test; `load_dataset(DIR)` reads all
splits. That library infers a column's type from each split alone, so no row holds a null or an empty list.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError
from sdxl_mel.files.atomic import write_json, write_text
from sdxl_mel.files.header import Frozen, parse_json, read_versioned
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import MelSpec

FORMAT = 1
SPLITS = ("train", "validation", "test", "regularization")
HEADER_NAME = "dataset.json"
ROWS_NAME = "metadata.jsonl"


class Item(Frozen):
    """One clip: its picture, its captions and where it came from.

    `file` and `offset_files` are relative to the dataset's folder. `offset_files[k]` is the clip moved by k/K of 8
    frames, so the first is `file` itself. `offset` is in seconds from the start of the track. `group` names a part
    of a split that is judged by itself ("seen", "unseen"). `sha256` is that of the source audio.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    file: str
    captions: tuple[str, ...] = Field(min_length=1)
    track: str
    artist: str = ""
    offset: float = Field(0.0, ge=0)
    licence: str = ""
    sha256: str = ""
    weight: float = Field(1.0, gt=0)
    repeats: int = Field(1, ge=1)
    instruments: tuple[str, ...] = ()
    group: str = ""
    loudness_lufs: float = 0.0
    offset_files: tuple[str, ...] = ()

    @field_validator("file", "offset_files")
    @classmethod
    def _inside(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in (value,) if isinstance(value, str) else value:
            if not is_inside(name):
                raise ValueError(f"{name!r} points outside the dataset")
        return value

    @model_validator(mode="before")
    @classmethod
    def _itself_first(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("offset_files") and "file" in values:
            return values | {"offset_files": (values["file"],)}
        return values


class Header(Frozen):
    """What `dataset.json` says; `counts` has clips, tracks and captions of each split.

    `skipped` are inputs that could not be used, `rejected` are tracks and clips left out by rule.
    """

    format: int = FORMAT
    spec: MelSpec
    anchor: str
    counts: dict[str, dict[str, int]] = {}
    skipped: tuple[Skipped, ...] = ()
    rejected: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    record: Record


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory: what its header says and the items of every split that has any."""

    spec: MelSpec
    anchor: str
    splits: Mapping[str, list[Item]]
    record: Record
    skipped: tuple[Skipped, ...] = ()
    rejected: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    folder: Path = field(default=Path(), compare=False)

    def path(self, item: Item, offset: int = 0) -> Path:
        """Return the picture of an item at a time offset."""
        return self.folder / item.offset_files[offset]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of clips, tracks and captions of each split."""
        return {split: _counted(items) for split, items in self.splits.items()}


def is_inside(name: str) -> bool:
    """Say whether a relative POSIX path stays in its folder (no root, no drive, no `..`, no NUL)."""
    path = PurePosixPath(name)
    strange = "\\" in name or "\0" in name or (len(name) > 1 and name[1] == ":")
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not strange


def is_dataset(folder: Path) -> bool:
    """Say whether a folder holds a prepared dataset."""
    return (folder / HEADER_NAME).is_file()


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write rows, card and header beside pictures that exist already; the header last, so that it vouches for all."""
    for split in SPLITS:
        rows = folder / split / ROWS_NAME
        if dataset.splits.get(split):
            write_text(rows, "".join(f"{_to_row(item)}\n" for item in dataset.splits[split]))
        else:
            rows.unlink(missing_ok=True)
    write_text(folder / "README.md", _card(dataset))
    header = Header.model_validate(dataset, from_attributes=True)
    write_json(folder / HEADER_NAME, header.model_dump(mode="json"))


def read_dataset(folder: Path) -> Dataset:
    """Read a prepared dataset; `write_dataset` is the inverse.

    Raises InputError for a folder that is none, FormatError for a row that is damaged or whose picture is missing.
    """
    header = read_header(folder)
    splits = {split: list(_rows(folder, split)) for split in SPLITS if (folder / split / ROWS_NAME).exists()}
    for split, counts in header.counts.items():
        found, stated = len(splits.get(split, ())), counts.get("clips")
        if found != stated:
            raise FormatError(
                f"{folder / split / ROWS_NAME}: {found} clips, {HEADER_NAME} says {stated}; prepare it again"
            )
    return Dataset(
        header.spec, header.anchor, splits, header.record, header.skipped, header.rejected, header.notes, folder
    )


def read_header(folder: Path) -> Header:
    """Read `dataset.json`. Raises InputError where there is none and FormatError where it is not ours."""
    missing = "no prepared dataset; make one with sdxl-mel prepare"
    path = folder / HEADER_NAME
    return read_versioned(path, Header, newest=FORMAT, what="dataset", missing=missing, again="prepare it again")


def _rows(folder: Path, split: str) -> Iterator[Item]:
    path = folder / split / ROWS_NAME
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                item = _from_row(split, parse_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"])) or "row"
                raise FormatError(f"{path}, line {number}: {place}: {first['msg']}") from error
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FormatError(f"{path}, line {number}: not a row of a dataset ({error})") from error
            missing = next((name for name in item.offset_files if not (folder / name).is_file()), None)
            if missing:
                raise FormatError(f"{path}, line {number}: its picture {missing} is missing; prepare it again")
            yield item


def _to_row(item: Item) -> str:
    split = PurePosixPath(item.file).parts[0]
    row = {"file_name": _within(split, item.file)} | item.model_dump(exclude={"file"})
    row["offset_files"] = [_within(split, name) for name in item.offset_files]
    row["instruments"] = ", ".join(item.instruments)
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _from_row(split: str, row: dict[str, Any]) -> Item:
    values = dict(row)
    values["file"] = f"{split}/{values.pop('file_name')}"
    values["offset_files"] = tuple(f"{split}/{name}" for name in values.get("offset_files", ()))
    values["instruments"] = tuple(filter(None, values.get("instruments", "").split(", ")))
    return Item.model_validate(values)


def _within(split: str, name: str) -> str:
    return PurePosixPath(name).relative_to(split).as_posix()


def _counted(items: Iterable[Item]) -> dict[str, int]:
    rows = list(items)
    captions = {(item.track, caption) for item in rows for caption in item.captions}
    return {"clips": len(rows), "tracks": len({item.track for item in rows}), "captions": len(captions)}


def _card(dataset: Dataset) -> str:
    """Return the dataset card, whose head tells `datasets` which splits there are."""
    files = "".join(
        f"      - split: {split}\n        path: {split}/**\n" for split in SPLITS if dataset.splits.get(split)
    )
    width, height = dataset.spec.size
    rows = "".join(
        f"| {split} | {count['clips']} | {count['tracks']} | {count['captions']} |\n"
        for split, count in dataset.counts.items()
    )
    return (
        f"---\nconfigs:\n  - config_name: default\n    data_files:\n{files}---\n\n"
        f"Mel spectrogram tiles of {width} x {height} pixels ({dataset.spec.tile_seconds:.2f} s each), "
        f"made by sdxl-mel prepare.\n`dataset.json` holds the spec, `report.html` shows the clips.\n\n"
        f"| split | clips | tracks | captions |\n|---|---|---|---|\n{rows}"
    )

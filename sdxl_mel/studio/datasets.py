"""A prepared dataset as pages show it: its clips with their captions before and after, and what was left out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdxl_mel.errors import InputError
from sdxl_mel.files.dataset import HEADER_NAME, SPLITS, Dataset, Item, read_dataset
from sdxl_mel.files.header import parse_json
from sdxl_mel.files.overrides import NAME, Overrides, read_overrides

CAPTIONS_NAME = "captions.jsonl"


@dataclass(frozen=True)
class Filter:
    """Which clips are asked for: of a split or a track, with a phrase in a caption, with a doubtful caption."""

    split: str | None = None
    track: str | None = None
    phrase: str | None = None
    doubt: bool | None = None


class Shown:
    """A dataset that is read once; `stamp` is the time of its header, which is written last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stamp = stamp_of(folder)
        self.dataset: Dataset = read_dataset(folder)
        self.items: list[Item] = [item for split in SPLITS for item in self.dataset.splits.get(split, ())]

    @cached_property
    def captions(self) -> dict[str, list[dict[str, Any]]]:
        """Return what became of the captions of every track."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in _lines(self.folder / CAPTIONS_NAME):
            rows.setdefault(str(row.get("track", "")), []).append(
                {name: row.get(name) for name in ("before", "after", "fate", "why", "edits", "vocal")}
            )
        return rows

    def overview(self) -> dict[str, Any]:
        """Return the numbers of the whole."""
        return {
            "spec": self.dataset.spec.model_dump(mode="json"),
            "anchor": self.dataset.anchor,
            "counts": self.dataset.counts,
            "rejects": Counter(reason_of(each.why) for each in self.dataset.rejected),
            "skipped": [each.model_dump() for each in self.dataset.skipped],
            "notes": list(self.dataset.notes),
            "record": self.dataset.record.model_dump(mode="json"),
            "tracks": len({item.track for item in self.items}),
        }

    def rejects(self, reason: str | None) -> list[dict[str, str]]:
        """Return what was left out by rule, all of it or that of one reason."""
        rows = [each.model_dump() for each in self.dataset.rejected]
        return [row for row in rows if reason is None or reason_of(row["why"]) == reason]

    def clips(self, wanted: Filter) -> list[int]:
        """Return the numbers of the clips that pass a filter."""
        return [number for number, item in enumerate(self.items) if self._passes(item, wanted)]

    def clip(self, number: int, overrides: Overrides) -> dict[str, Any]:
        """Return one clip."""
        item, spec = self.item(number), self.dataset.spec
        override = overrides.tracks.get(item.track)
        return {
            "number": number,
            "split": split_of(item),
            "track": item.track,
            "artist": item.artist,
            "start": item.offset,
            "seconds": spec.width * spec.hop_length / spec.sample_rate,
            "captions": list(item.captions),
            "history": self.captions.get(item.track, []),
            "doubts": self._doubts(item),
            "group": item.group,
            "instruments": list(item.instruments),
            "licence": item.licence,
            "loudness_lufs": item.loudness_lufs,
            "override": None if override is None else override.model_dump(exclude_none=True),
        }

    def item(self, number: int) -> Item:
        """Return one clip as it is in the dataset. Raises InputError where there is none of that number."""
        if not 0 <= number < len(self.items):
            raise InputError(f"clip {number}: this dataset has {len(self.items)}, from 0 on")
        return self.items[number]

    def require_track(self, track: str) -> None:
        """Raise InputError for a track that the dataset does not know, in it or left out of it."""
        known = {item.track for item in self.items} | self.captions.keys()
        if track not in known:
            raise InputError(f"{track}: no track of this dataset")

    def _passes(self, item: Item, wanted: Filter) -> bool:
        phrase = (wanted.phrase or "").lower()
        return (
            wanted.split in (None, split_of(item))
            and wanted.track in (None, item.track)
            and (not phrase or any(phrase in caption.lower() for caption in item.captions))
            and (wanted.doubt is None or bool(self._doubts(item)) == wanted.doubt)
        )

    def _doubts(self, item: Item) -> list[str]:
        """Return what is doubtful about the captions of a clip: what was dropped or did not fit."""
        return [row["why"] for row in self.captions.get(item.track, ()) if row["why"]]


def stamp_of(folder: Path) -> int:
    """Return when the header of a dataset was written. Raises InputError where there is none."""
    try:
        return (folder / HEADER_NAME).stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{folder.name}: no prepared dataset ({error.strerror}); make one with prepare") from error


def overrides_of(folder: Path) -> Overrides:
    """Return the edits of a dataset."""
    return read_overrides(folder / NAME)


def split_of(item: Item) -> str:
    """Return the split of a clip, which is the folder of its picture."""
    return item.file.partition("/")[0]


def reason_of(why: str) -> str:
    """Return why something was left out without the numbers and names in it, so that equal reasons are counted."""
    return why.partition(":")[0].partition("(")[0].partition(" of ")[0].strip()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = parse_json(line)
            yield row if isinstance(row, dict) else {}

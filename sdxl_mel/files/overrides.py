"""Edits of a dataset by hand, `overrides.json` beside its header: what `prepare` does otherwise with single tracks."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sdxl_mel.files.atomic import write_json
from sdxl_mel.files.header import Frozen, read_versioned

FORMAT = 1
NAME = "overrides.json"


class Override(Frozen):
    """What is otherwise for one track: its caption, the split it is in, or why it is left out."""

    caption: str | None = Field(None, min_length=1)
    exclude: str | None = Field(None, min_length=1)
    split: Literal["train", "validation", "test", "regularization"] | None = None


class Overrides(Frozen):
    """The edits of a dataset, by the names of tracks."""

    format: int = FORMAT
    tracks: dict[str, Override] = {}

    def edited(self, track: str, override: Override) -> "Overrides":
        """Return the edits with those of one track replaced; an override that says nothing takes them back."""
        others = {name: each for name, each in self.tracks.items() if name != track}
        mine = {} if override == Override() else {track: override}
        return Overrides(tracks=dict(sorted({**others, **mine}.items())))


def read_overrides(path: Path) -> Overrides:
    """Read the edits of a dataset; none where there is no file. Raises FormatError for a damaged one."""
    if not path.exists():
        return Overrides()
    missing = "no edits; leave --overrides out"
    return read_versioned(path, Overrides, newest=FORMAT, what="edits", missing=missing, again="edit it again")


def write_overrides(path: Path, overrides: Overrides) -> None:
    """Write the edits of a dataset; `read_overrides` is the inverse."""
    write_json(path, overrides.model_dump(mode="json", exclude_none=True))

"""A dataset on disk: written and read alike, read by `datasets`, refused where damaged."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.dataset import Dataset, Item, is_dataset, is_inside, read_dataset, write_dataset
from sdxl_mel.files.spectrogram import Spectrogram, read_spectrogram, write_spectrogram
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS

SPEC = PRESETS["mini"]
ROW = "metadata.jsonl"


def an_item(split: str, number: int, **values: object) -> Item:
    return Item(
        file=f"{split}/clip-{number}.png",
        captions=("mel spectrogram, flute", f'mel spectrogram, a "{number}"\nflute'),
        track=f"t{number}",
        **values,
    )


def make(folder: Path) -> Dataset:
    splits = {
        "train": [
            an_item("train", 0, artist="a", offset_files=("train/clip-0.png", "train/offsets/clip-0-1.png")),
            an_item("train", 1, instruments=("flute", "piano"), weight=2.5, repeats=3),
        ],
        "test": [an_item("test", 2, group="unseen", licence="CC BY 4.0", offset=0.016)],
        "regularization": [Item(file="regularization/r.png", captions=("song with vocals",), track="r")],
    }
    for number, item in enumerate(item for items in splits.values() for item in items):
        levels = np.full((SPEC.n_mels, SPEC.width, 1), number, dtype=np.uint8)
        for name in item.offset_files:
            write_spectrogram(folder / name, Spectrogram(levels, SPEC))
    dataset = Dataset(SPEC, "mel spectrogram", splits, Record(stage="prepare"), (Skipped(what="x", why="silent"),))
    write_dataset(folder, dataset)
    return dataset


def test_read_is_the_inverse_of_write(tmp_path: Path) -> None:
    assert not is_dataset(tmp_path)
    written = make(tmp_path)
    read = read_dataset(tmp_path)
    assert read == written
    assert is_dataset(tmp_path)
    item = read.splits["train"][0]
    assert read.path(item, 1) == tmp_path / "train/offsets/clip-0-1.png"
    assert read.counts["train"] == {"clips": 2, "tracks": 2, "captions": 4}


def test_the_same_dataset_makes_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) == 10
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_datasets_reads_every_split_and_column(tmp_path: Path) -> None:
    from datasets import load_dataset

    written = make(tmp_path / "set")
    plain = load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in plain.items()} == {"train": 2, "test": 1}
    everything = load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in everything.items()} == {"train": 2, "test": 1, "regularization": 1}
    row = plain["train"][1]
    item = written.splits["train"][1]
    assert tuple(row["captions"]) == item.captions
    assert (row["track"], row["weight"], row["repeats"], row["instruments"]) == ("t1", 2.5, 3, "flute, piano")
    pixels = np.asarray(row["image"])
    assert np.array_equal(pixels[::-1], read_spectrogram(written.folder / tmp_path / "set" / item.file).levels[..., 0])


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prepared dataset.*sdxl-mel prepare"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"file_name": "../../etc/x"}, "line 1.*points outside"),
        (lambda row: row | {"captions": []}, "line 1.*captions"),
        (lambda row: row | {"file_name": "gone.png", "offset_files": []}, "gone.png is missing"),
        (lambda row: row | {"colour": "red"}, "colour"),
        (lambda row: [row], "line 1: not a row"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, change, message: str) -> None:
    make(tmp_path)
    rows = tmp_path / "test" / ROW
    rows.write_text(json.dumps(change(json.loads(rows.read_text()))) + "\n")
    with pytest.raises(FormatError, match=message):
        read_dataset(tmp_path)


def test_lost_rows_and_damaged_headers_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "test" / ROW).unlink()
    with pytest.raises(FormatError, match=r"0 clips, dataset\.json says 1"):
        read_dataset(tmp_path)
    header = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(header | {"format": 2}))
    with pytest.raises(FormatError, match="format 2, this toolkit reads 1"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_dataset(tmp_path)


@given(st.text(max_size=30))
def test_a_name_that_is_inside_stays_inside(name: str) -> None:
    if is_inside(name):
        assert (Path("/srv/set") / name).resolve().is_relative_to("/srv/set")


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "C:x", "a\\..\\x", "a\0b"])
def test_names_that_leave_the_folder(name: str) -> None:
    assert not is_inside(name)

"""Edits by hand: `prepare` honours them, and without them everything is as it was."""

import json
from pathlib import Path

import pytest

from sdxl_mel.dataset.by_hand import in_stated_splits
from sdxl_mel.dataset.tracks import SourceTrack
from sdxl_mel.errors import FormatError
from sdxl_mel.files.dataset import read_dataset
from sdxl_mel.files.overrides import Override, Overrides, read_overrides, write_overrides
from sdxl_mel.stages.prepare import Config, Report, run
from tests.dataset.music import write_folder

CAPTIONS = {"one.wav": "slow piano", "two.wav": "fast flute", "three.wav": "harp and cello", "four.wav": "soft oboe"}


def prepare(music: Path, out: Path) -> Report:
    return run(Config(music=music, out=out, preset="mini", jobs=1, validation=0, test=0.3))


def test_captions_splits_and_exclusions_are_honoured(tmp_path: Path) -> None:
    music, out = write_folder(tmp_path / "music", CAPTIONS), tmp_path / "set"
    prepare(music, out)
    before = read_dataset(out)
    trained = [item.track for item in before.splits["train"]]
    one, two = list(dict.fromkeys(trained))[:2]
    edits = {one: Override(caption="a Calm piano, by X", split="test"), two: Override(exclude="a bad recording")}
    write_overrides(out / "overrides.json", Overrides(tracks={**edits, "gone": Override(split="train")}))
    report = prepare(music, out)
    after = read_dataset(out)
    items = {item.track: (split, item) for split, each in after.splits.items() for item in each}
    assert (items[one][0], items[one][1].captions) == ("test", ("mel spectrogram, a Calm piano, by X",))
    assert two not in items
    assert [each.why for each in after.rejected if each.what == two] == ["left out by hand: a bad recording"]
    assert [each.what for each in report.skipped] == ["gone"]
    assert after.record.inputs.keys() - before.record.inputs.keys() == {"overrides"}
    rows = [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["before"], row["fate"], row["why"]) for row in rows if row["track"] == one][-1] == (
        "",
        "kept",
        "edited by hand",
    )
    (out / "overrides.json").unlink()
    prepare(music, out)
    assert read_dataset(out) == before


def test_an_artist_stays_in_one_split() -> None:
    tracks = [SourceTrack(name, Path(name), (), artist=artist) for name, artist in (("a", "X"), ("b", "X"), ("c", "Y"))]
    moved = in_stated_splits(tracks, {"a": Override(split="test")})
    assert [track.split for track in moved] == ["test", "test", ""]


def test_edits_are_read_back_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "overrides.json"
    edits = Overrides().edited("b", Override(split="test")).edited("a", Override(caption="x"))
    write_overrides(path, edits)
    assert read_overrides(path) == edits
    assert edits.edited("a", Override()).edited("b", Override()) == read_overrides(tmp_path / "none.json")
    path.write_text('{"format": 1, "tracks": {"a": {"split": "training"}}}')
    with pytest.raises(FormatError, match="split"):
        read_overrides(path)

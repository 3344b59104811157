"""Every layout a source can have is found out and read; what cannot be read is named, and the rest kept."""

import csv
import json
import os
import unicodedata
from pathlib import Path

import pytest
from datasets import Audio, Dataset, DatasetDict

from sdxl_mel.dataset.decode import opened
from sdxl_mel.dataset.settings import FileSource
from sdxl_mel.dataset.sources import find_tracks, kind_of
from sdxl_mel.dataset.table_source import jamendo_tags, track_licences
from sdxl_mel.dataset.tracks import SourceList
from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.tables import texts_in
from tests.dataset.music import write_music


def read(place: Path, kind: str = "auto", **given) -> SourceList:
    options = {"audio_dir": None, "tags": None, "columns": {}, "valid_subset": False, "uncaptioned": False} | given
    return find_tracks(FileSource(place, kind, **options), place / "none")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def table(folder: Path, text: str | bytes, name: str = "songs.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_with_side_cars(tmp_path: Path) -> None:
    touch(
        tmp_path / "a/one.mp3",
        tmp_path / "two.flac",
        tmp_path / "bare.wav",
        tmp_path / ".hidden/x.wav",
        tmp_path / "notes.pdf",
    )
    (tmp_path / "a/one.txt").write_text("\ufeffslow piano\n\n  soft strings \n", encoding="utf-8")
    (tmp_path / "two.json").write_text(
        json.dumps({"captions": ["fast", "loud"], "tags": ["rock"], "artist": "The Band", "license": "CC BY"})
    )
    found = read(tmp_path)
    assert [track.identifier for track in found.tracks] == ["a/one.mp3", "two.flac"]
    assert found.tracks[0].captions == ("slow piano", "soft strings")
    two = found.tracks[1]
    assert (two.captions, two.tags, two.artist, two.names, two.licence) == (
        ("fast", "loud"),
        ("rock",),
        "The Band",
        ("The Band",),
        "CC BY",
    )
    assert [skipped.what for skipped in found.skipped] == ["bare.wav"]
    assert "no bare.txt or bare.json" in found.skipped[0].why
    assert len(read(tmp_path, uncaptioned=True).tracks) == 3


def test_a_broken_side_car_costs_one_track(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav", tmp_path / "d.wav")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 music")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[1]")
    (tmp_path / "d.txt").write_text("fine")
    found = read(tmp_path)
    assert [track.identifier for track in found.tracks] == ["d.wav"]
    assert [skipped.what for skipped in found.skipped] == ["a.wav", "b.wav", "c.wav"]


def test_a_table_with_quotes_newlines_and_several_captions(tmp_path: Path) -> None:
    touch(tmp_path / "x.wav", tmp_path / "y.wav")
    path = table(
        tmp_path,
        'file,text,artist,tags\nx.wav,"a ""slow"", soft\ntune",Bach,"[\'a\', \'b\']"\nx.wav,second,Bach,\ny.wav,,7,z\n',
    )
    found = read(path)
    assert [(skipped.what, skipped.why[:10]) for skipped in found.skipped] == [("y.wav", "no caption")]
    x, y = read(path, uncaptioned=True).tracks
    assert x.captions == ('a "slow", soft\ntune', "second")
    assert (x.artist, x.names, x.tags) == ("Bach", ("Bach",), ("a", "b"))
    assert (y.captions, y.artist, y.names) == (("",), "7", ())


@pytest.mark.parametrize("name", ["songs.tsv", "songs.jsonl", "songs.json"])
def test_other_tables(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "x.wav")
    rows = {
        "songs.tsv": "path\tcaption\nx.wav\tslow\n",
        "songs.jsonl": '{"path": "x.wav", "caption": ["slow"]}\n\n',
        "songs.json": '[{"path": "x.wav", "caption": "slow"}]',
    }
    assert read(table(tmp_path, rows[name], name)).tracks[0].captions == ("slow",)


def test_columns_can_be_stated(tmp_path: Path) -> None:
    touch(tmp_path / "clips/x.wav")
    path = table(tmp_path, "datei,beschreibung,wer\nx.wav,slow,Ann\n")
    columns = {"audio": "datei", "caption": "beschreibung", "artist": "wer"}
    assert read(path, columns=columns, audio_dir=tmp_path / "clips").tracks[0].artist == "Ann"


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "file,captoin\nx,y\n",
            {},
            r"no column for the caption \(did you mean 'captoin'\?\); its columns are file, captoin; state",
        ),
        ("a,b\nx,y\n", {}, "no column for the audio; its columns are a, b"),
        ("file,text\nx,y\n", {"caption": "txet"}, "no column 'txet' .did you mean 'text'"),
        ("file,text\nx,y\n", {"capton": "text"}, "--columns capton: unknown .did you mean 'caption'"),
        ("", {}, "empty; its first line must name the columns"),
    ],
)
def test_a_table_without_its_columns(tmp_path: Path, text: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, text), columns=columns)


def test_bad_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    touch(tmp_path / "music/good.wav", tmp_path / "music/other.wav", tmp_path / "secret.wav")
    rows = [
        b"id,path,caption",
        b"1,good.wav,fine",
        b"2,gone.wav,lost",
        b"3,../secret.wav,out",
        b"4,../../etc/x,out",
        b"5,/etc/passwd,out",
        b"6,good.wav,caf\xe9",
        b"7,good.wav,too,many,cells",
        b"1,other.wav,another file",
        b"8,,nothing",
        b"1,good.wav,more",
    ]
    found = read(table(tmp_path / "music", b"\n".join(rows)))
    assert [(track.identifier, track.captions) for track in found.tracks] == [("1", ("fine", "more"))]
    reasons = {skipped.what: skipped.why for skipped in found.skipped}
    assert [what.split()[-1] for what in reasons] == ["3", "4", "5", "6", "7", "8", "9", "10"]
    assert reasons["songs.csv, line 3"] == "audio 'gone.wav' is missing"
    assert all("points outside music/; refused" in reasons[f"songs.csv, line {line}"] for line in (4, 5, 6))
    assert "not UTF-8" in reasons["songs.csv, line 7"]
    assert "5 cells under 3 columns" in reasons["songs.csv, line 8"]
    assert "duplicate id '1': it is good.wav already, here it is other.wav" in reasons["songs.csv, line 9"]


def test_bad_lines_of_json(tmp_path: Path) -> None:
    touch(tmp_path / "x.wav")
    found = read(table(tmp_path, b'{"path": "x.wav", "caption": "a"}\n{oops\n[1]\n"\xff"\n', "s.jsonl"))
    assert len(found.tracks) == 1
    assert [skipped.what for skipped in found.skipped] == ["s.jsonl, line 2", "s.jsonl, line 3", "s.jsonl, line 4"]


HEADER = "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"


def test_the_song_describer_layout(tmp_path: Path) -> None:
    touch(tmp_path / "audio/34/1004034.2min.mp3", tmp_path / "audio/09/9.2min.mp3")
    table(
        tmp_path,
        HEADER + "1,1004034,slow,True,0,5,7,34/1004034.mp3,99\n2,1004034,soft,,0,5,7,34/1004034.mp3,99\n"
        "3,9,loud,False,0,6,8,09/9.mp3,99\n4,10,lost,True,0,6,8,10/10.mp3,99\n",
        "song_describer.csv",
    )
    table(
        tmp_path,
        "TRACK_ID\tA\tB\tP\tD\tTAGS\ntrack_1004034\ta\tb\tp\td\tgenre---jazz\tinstrument---voice\n",
        "song_describer.mtg-jamendo.tsv",
    )
    table(tmp_path, "34/1004034.mp3\nhttp://creativecommons.org/licenses/by/3.0/\n", "audio_licenses.txt")
    assert kind_of(tmp_path) == kind_of(tmp_path / "song_describer.csv") == "song-describer"
    found = read(tmp_path)
    first, second = found.tracks
    assert (first.captions, first.artist, first.names) == (("slow", "soft"), "5", ())
    assert first.tags == ("genre---jazz", "instrument---voice")
    assert first.licence == "http://creativecommons.org/licenses/by/3.0/"
    assert second.licence == ""
    assert "evaluation only" in found.notes[0]
    assert found.skipped[0].why == "audio '10/10.2min.mp3' is missing"
    assert [track.captions for track in read(tmp_path, valid_subset=True).tracks] == [("slow",)]


def test_musiccaps(tmp_path: Path) -> None:
    touch(
        tmp_path / "clips/-0Gj8-vB1q4.wav",
        tmp_path / "clips/[abcdefghij1]-[30-40].wav",
        tmp_path / "clips/abcdefghij2_30_40.wav",
    )
    path = table(
        tmp_path,
        "ytid,start_s,end_s,aspect_list,caption,author_id\n"
        "-0Gj8-vB1q4,30,40,\"['slow', 'sad']\",Slow tune.,4\nabcdefghij1,0,10,[],B,4\n"
        "abcdefghij2,0,10,[],C,4\nzzzzzzzzzzz,0,10,[],D,4\n",
    )
    found = read(path, audio_dir=tmp_path / "clips")
    assert [(track.identifier, track.tags) for track in found.tracks] == [
        ("-0Gj8-vB1q4", ("slow", "sad")),
        ("abcdefghij1", ()),
        ("abcdefghij2", ()),
    ]
    assert found.skipped[0].why == "no clip named zzzzzzzzzzz under clips"


def test_an_audiofolder_keeps_its_splits(tmp_path: Path) -> None:
    touch(tmp_path / "train/x.wav", tmp_path / "dev/y.wav")
    table(tmp_path / "train", "file_name,text\nx.wav,slow\n", "metadata.csv")
    table(tmp_path / "dev", '{"file_name": "y.wav", "text": "soft"}\n', "metadata.jsonl")
    assert kind_of(tmp_path) == "audiofolder"
    assert {track.identifier: track.split for track in read(tmp_path).tracks} == {
        "train/x.wav": "train",
        "dev/y.wav": "validation",
    }


def test_a_saved_datasets_folder(tmp_path: Path) -> None:
    path = write_music(tmp_path / "x.flac", 1, 0.5)
    rows = {"audio": [{"bytes": path.read_bytes(), "path": "x.flac"}], "text": ["slow"]}
    saved = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    DatasetDict({"train": saved}).save_to_disk(tmp_path / "set")
    assert kind_of(tmp_path / "set") == "datasets"
    (there,) = read(tmp_path / "set").tracks
    assert (there.identifier, there.split, there.captions) == ("train-000000", "train", ("slow",))
    with opened(there.audio) as (sha256, samples), opened(path) as (same, expected):
        assert sha256 == same
        assert (samples()[0] == expected()[0]).all()


def test_a_saved_datasets_folder_of_paths(tmp_path: Path) -> None:
    Dataset.from_dict({"path": ["x.flac", "gone.flac"], "text": ["slow", "lost"]}).save_to_disk(tmp_path / "set")
    path = write_music(tmp_path / "set/x.flac", 1, 0.5)
    there, gone = read(tmp_path / "set").tracks
    with opened(there.audio) as (sha256, _), opened(path) as (same, _):
        assert sha256 == same
    with pytest.raises(InputError, match=r"row 1: its audio 'gone\.flac' is not in the folder"), opened(gone.audio):
        pass


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: None, "auto", "no such file or folder"),
        (lambda path: path.write_text("x"), "folder", "a file; --source folder reads a folder"),
        (lambda path: path.mkdir(), "table", "expected one table here, found none"),
        (
            lambda path: (path.mkdir(), (path / "dataset.json").write_text("{}")),
            "auto",
            "prepared already; give it to sdxl-mel cache",
        ),
        (
            lambda path: (path.mkdir(), (path / "state.json").write_text("{}")),
            "auto",
            "not a folder that datasets saved",
        ),
    ],
)
def test_what_is_no_source(tmp_path: Path, make, kind: str, message: str) -> None:
    make(tmp_path / "place")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "place", kind)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a table"):
        read(table(tmp_path, "x", "songs.xlsx"))
    with pytest.raises(FormatError, match="no row that is a JSON object"):
        read(table(tmp_path, "nonsense", "songs.jsonl"))


def test_texts_in_a_cell() -> None:
    assert texts_in('["a", "b"]') == ("a", "b")
    assert texts_in("[broken") == ("[broken",)
    assert texts_in("[also broken]") == ("[also broken]",)
    assert texts_in(None) == ()
    assert texts_in(["a", None, 3]) == ("a", "3")


def test_tags_and_licences_beside_a_table(tmp_path: Path) -> None:
    assert jamendo_tags(table(tmp_path, "head\ntrack_0000214\ta\tb\tp\td\tx\ty\nshort\n", "t.tsv")) == {
        "214": ("x", "y")
    }
    listed = "00/1.mp3 by A\n http://creativecommons.org/licenses/by-nc/3.0/.\n02/2.2min.mp3: no licence\n"
    assert track_licences(table(tmp_path, listed, "l.txt")) == {"1": "http://creativecommons.org/licenses/by-nc/3.0/"}
    with pytest.raises(InputError, match="cannot read these tags"):
        jamendo_tags(tmp_path / "none.tsv")


def test_long_cells_are_read_and_the_limit_of_the_program_stays(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    path = table(tmp_path, f"path,caption\na.wav,{'piano ' * 50_000}\n")
    before = csv.field_size_limit()
    assert len(read(path).tracks[0].captions[0]) > before
    assert csv.field_size_limit() == before


def test_missing_captions_follow_one_rule_in_every_kind_of_source(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d", "e")
    touch(*(tmp_path / f"{name}.wav" for name in names))
    missing = (', "caption": NaN', ', "caption": {"en": "slow"}', "", ', "caption": [null, true]', ', "caption": "nan"')
    lines = [f'{{"path": "{name}.wav"{caption}}}\n' for name, caption in zip(names, missing)]
    places = [
        table(tmp_path, 'path,caption\na.wav\nb.wav,\nc.wav,"  "\nd.wav,[]\ne.wav,nan\n'),
        table(tmp_path, "".join(lines), "songs.jsonl"),
        table(tmp_path, "ytid,aspect_list,caption\na,[],\nb,[]\nc,[],\nd,[],\ne,[],nan\n", "caps.csv"),
    ]
    for place in places:
        found = read(place)
        assert [track.captions for track in found.tracks] == [("nan",)]
        assert [skipped.why for skipped in found.skipped] == ["no caption (--uncaptioned keeps it)"] * 4
        kept = read(place, uncaptioned=True)
        assert (len(kept.tracks), kept.skipped) == (5, [])
        assert not any(text.strip() for track in kept.tracks[:4] for text in track.captions)


def test_missing_captions_of_a_saved_datasets_folder(tmp_path: Path) -> None:
    rows = {"path": ["a.wav", "b.wav", "c.wav"], "caption": ["slow", None, ""]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    assert len(read(tmp_path / "set").skipped) == 2
    assert [track.captions for track in read(tmp_path / "set", uncaptioned=True).tracks] == [("slow",), (), ("",)]
    Dataset.from_dict({"path": ["a.wav"], "caption": [float("nan")]}).save_to_disk(tmp_path / "numbers")
    assert len(read(tmp_path / "numbers").skipped) == 1


def test_splits_and_rows_of_a_saved_datasets_folder_that_are_damaged(tmp_path: Path) -> None:
    rows = {"path": ["a.wav", "b.wav"], "caption": ["slow pianoé", "fast"]}
    touch(tmp_path / "set/a.wav", tmp_path / "set/b.wav")
    DatasetDict({name: Dataset.from_dict(rows) for name in ("train", "test", "val")}).save_to_disk(tmp_path / "set")
    arrow = {name: next((tmp_path / "set" / name).glob("*.arrow")) for name in ("train", "test")}
    arrow["train"].write_bytes(arrow["train"].read_bytes().replace("é".encode(), b"\xff\xff"))
    arrow["test"].write_bytes(arrow["test"].read_bytes()[:200])
    state = tmp_path / "set/val/state.json"
    state.write_text(state.read_text().replace("_fingerprint", "_finger"))
    found = read(tmp_path / "set")
    assert [track.captions for track in found.tracks] == [("fast",)]
    assert [each.what for each in found.skipped] == ["test", "val", "row 0 of train"]
    assert not any(str(tmp_path) in each.why for each in found.skipped)
    arrow["train"].unlink()
    with pytest.raises(FormatError, match="not a folder that datasets saved: not rows"):
        read(tmp_path / "set")


def test_several_rows_of_a_saved_datasets_folder_are_one_track(tmp_path: Path) -> None:
    sound, other = {"bytes": b"sound", "path": None}, {"bytes": b"other", "path": None}
    rows = {"audio": [sound, sound, other], "id": ["7", "7", "7"], "text": ["a", "b", "c"]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    found = read(tmp_path / "set")
    assert [track.captions for track in found.tracks] == [("a", "b")]
    assert found.skipped[0].why.startswith("duplicate id '7'")


def test_splits_that_paths_and_columns_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("train/a.wav", "Test/b.wav", "more/val/c.wav", "d.wav", "train/e.wav")))
    text = (
        "file_name,text,split\ntrain/a.wav,a,\nTest\\b.wav,b,\nmore/val/c.wav,c,\nd.wav,d,fold1\ntrain/e.wav,e,Test\n"
    )
    expected = {"a": "train", "b": "test", "c": "validation", "d": "", "e": "test"}
    for name in ("metadata.csv", "songs.csv"):
        found = read(table(tmp_path, text, name))
        assert {track.captions[0]: track.split for track in found.tracks} == expected
        assert found.notes == ["1 tracks are of a split of none of our names: d.wav (fold1)"]
    assert {track.captions[0]: track.split for track in read(tmp_path).tracks} == expected
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    for path in tmp_path.rglob("*.wav"):
        path.with_suffix(".txt").write_text(path.stem)
    assert {track.captions[0]: track.split for track in read(tmp_path).tracks} == expected | {"e": "train"}


def test_side_cars_beside_folders_with_tables(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.wav", "sub/b.wav", "sub/c.wav", "sub/d.wav", "deep/er/e.wav")))
    (tmp_path / "a.txt").write_text("from a side-car")
    (tmp_path / "sub/c.json").write_text('{"caption": "from another"}')
    (tmp_path / "sub/b.txt").write_text("not used: the table describes it")
    table(tmp_path / "sub", "file_name,text\nb.wav,from a table\n", "metadata.csv")
    table(tmp_path / "deep", '{"file_name": "er/e.wav", "text": "from lines"}\n', "metadata.jsonl")
    table(tmp_path, "notes", "README.txt")
    found = read(tmp_path)
    assert {track.identifier: track.captions for track in found.tracks} == {
        "sub/b.wav": ("from a table",),
        "deep/er/e.wav": ("from lines",),
        "a.wav": ("from a side-car",),
        "sub/c.wav": ("from another",),
    }
    assert [skipped.what for skipped in found.skipped] == ["sub/d.wav"]
    assert found.notes == ["2 files beside the music describe none of it: README.txt, sub/b.txt"]
    assert {track.identifier for track in read(tmp_path, "folder").tracks} == {"a.wav", "sub/b.wav", "sub/c.wav"}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "metadata.csv",
            b'file_name,text\nb.wav,"slow\nc.wav,fast\n',
            "line 2: a quote that is opened here is not closed",
        ),
        ("metadata.csv", b"", "line 1: empty"),
        ("metadata.csv", b"text,text\nb.wav,slow\n", "two columns are named 'text'"),
        ("metadata.csv", b"name,words\nb.wav,slow\n", "no column for the"),
        ("metadata.csv", "file_name,text\nb.wav,a\n".encode("utf-16")[:-1], "not UTF-8 text, nor whole UTF-16"),
        ("metadata.jsonl", b'["b.wav"]\n', "holds no row that is a JSON object"),
    ],
)
def test_a_table_of_a_folder_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    touch(*(tmp_path / each for each in ("a.wav", "bad/b.wav", "bad/deep/c.wav", "good/d.wav")))
    (tmp_path / "a.txt").write_text("from a side-car")
    (tmp_path / "bad/b.txt").write_text("described beside it too")
    (tmp_path / "bad" / name).write_bytes(content)
    table(tmp_path / "good", "file_name,text\nd.wav,from a table\n", "metadata.csv")
    found = read(tmp_path)
    assert {track.identifier for track in found.tracks} == {"a.wav", "bad/b.wav", "good/d.wav"}
    skipped = {each.what: each.why for each in found.skipped}
    assert skipped.keys() == {f"bad/{name}", "bad/deep/c.wav"}
    assert skipped[f"bad/{name}"].startswith(why)
    assert skipped["bad/deep/c.wav"] == f"bad/{name}, which may describe it, cannot be read"
    assert not any(str(tmp_path) in reason for reason in skipped.values())


@pytest.mark.parametrize("name", ["a.caption", "a.TXT", "a.Json"])
def test_side_cars_of_other_programs(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "a.wav")
    (tmp_path / name).write_text('{"text": "slow"}' if name.lower().endswith("json") else "slow\n")
    (track,) = read(tmp_path).tracks
    assert track.captions == ("slow",)


def test_two_tables_that_name_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "train/x.wav")
    table(tmp_path, "file_name,text\ntrain/x.wav,one\n", "metadata.csv")
    table(tmp_path / "train", '{"file_name": "x.wav", "text": "two"}\n', "metadata.jsonl")
    (track,) = read(tmp_path).tracks
    assert track.captions == ("one", "two")


@pytest.mark.parametrize(("on_disk", "in_name"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_side_cars_whose_names_are_composed_otherwise(tmp_path: Path, on_disk: str, in_name: str) -> None:
    touch(tmp_path / f"{unicodedata.normalize(on_disk, 'Café ä')}.mp3")
    side_car = tmp_path / f"{unicodedata.normalize(in_name, 'Café ä')}.TXT"
    side_car.write_text("slow\u2028piano\x85soft\r\nfast", encoding="utf-16")
    (track,) = read(tmp_path).tracks
    assert track.captions == ("slow\u2028piano\x85soft", "fast")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    touch(*(tmp_path / os.fsdecode(name) for name in (b"caf\xe9.wav", b"\xff/b.wav", b"c\xe9.wav")))
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("slow")
    (tmp_path / os.fsdecode(b"\xff/b.json")).write_text('{"caption": "fast"}')
    found = read(tmp_path)
    assert [track.identifier for track in found.tracks] == ["caf\\xe9.wav", "\\xff/b.wav"]
    assert [skipped.what for skipped in found.skipped] == ["c\\xe9.wav"]


def test_other_music_links_and_hidden_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.m4a", tmp_path / "._a.wav", tmp_path / "more.zip")
    (tmp_path / "a.txt").write_text("slow")
    (tmp_path / "b.txt").write_text("slow")
    (tmp_path / "c.mp3").symlink_to("nothing.mp3")
    found = read(tmp_path)
    assert [skipped.what for skipped in found.skipped] == ["b.m4a", "c.mp3"]
    assert found.notes == [
        "1 hidden files are left out: ._a.wav",
        "2 files beside the music describe none of it: b.txt, more.zip",
    ]


def test_clips_of_no_row_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "aaaaaaaaaaa.wav", tmp_path / "bbbbbbbbbbb.wav", tmp_path / "ccccccccccc.m4a")
    found = read(table(tmp_path, "ytid,aspect_list,caption\naaaaaaaaaaa,[],slow\nccccccccccc,[],soft\n"))
    assert [skipped.what for skipped in found.skipped] == ["songs.csv, line 3", "ccccccccccc.m4a"]
    assert "1 clips under" in found.notes[0]
    assert found.notes[0].endswith("bbbbbbbbbbb.wav")


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b", ".", "/\0"])
def test_hostile_cells_are_reasons(tmp_path: Path, text: str) -> None:
    for name, content in (
        ("t.csv", f"path,caption\n{text},slow\n"),
        ("s.csv", f"{HEADER}1,2,slow,True,0,5,7,{text},9\n"),
    ):
        found = read(table(tmp_path, content, name))
        assert (len(found.tracks), len(found.skipped)) == (0, 1)


def test_tables_of_pictures_are_no_audiofolder(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "earlier/train/x.png")
    (tmp_path / "a.txt").write_text("slow")
    (tmp_path / "earlier/dataset.json").write_text("{}")
    table(tmp_path / "earlier/train", '{"file_name": "x.png", "captions": ["a"]}\n', "metadata.jsonl")
    assert kind_of(tmp_path) == "folder"
    assert [track.identifier for track in read(tmp_path).tracks] == ["a.wav"]


def test_an_audiofolder_whose_column_is_named_otherwise(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    assert len(read(table(tmp_path, "filename,caption\na.wav,slow\n", "metadata.csv").parent).tracks) == 1


def test_ids_that_begin_anew_in_every_split(tmp_path: Path) -> None:
    splits = {
        name: Dataset.from_dict({"path": [f"{name}.wav"], "id": [0], "text": [name]}) for name in ("train", "test")
    }
    DatasetDict(splits).save_to_disk(tmp_path / "set")
    found = read(tmp_path / "set")
    assert [(track.identifier, track.split) for track in found.tracks] == [("0", "train"), ("test/0", "test")]


def test_every_source_says_of_a_track_what_it_knows(tmp_path: Path) -> None:
    touch(tmp_path / "folder/a.wav", tmp_path / "a.wav")
    row = {"caption": ["slow"], "artist": "Ann", "tags": ["x", ""], "instruments": "violin; piano", "split": "val"}
    (tmp_path / "folder/a.json").write_text(json.dumps(row))
    saved = {name: [value] for name, value in row.items()} | {"path": ["a.wav"]}
    Dataset.from_dict(saved).save_to_disk(tmp_path / "set")
    lines = table(tmp_path, json.dumps(row | {"path": "a.wav"}), "songs.jsonl")
    for place in (tmp_path / "folder", tmp_path / "set", lines):
        (track,) = read(place).tracks
        known = (track.captions, track.artist, track.names, track.tags, track.instruments, track.split)
        assert known == (("slow",), "Ann", ("Ann",), ("x",), ("violin", "piano"), "validation")

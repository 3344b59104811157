"""What a folder holds is used or named; a file is found however a text spells its name, and nothing outside."""

import os
import unicodedata
from pathlib import Path

import pytest

from sdxl_mel.files.describe import description
from sdxl_mel.files.finding import file_named, files_given, find_files, tile_paths
from sdxl_mel.files.results import Entry, write_manifest


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def test_every_file_is_used_or_named(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("b.WAV", "a/x.wav", "c.m4a", "d.WMA", "e.txt", ".f.wav", ".g/h.wav", "out/i.wav")
        )
    )
    touch(tmp_path.parent / "elsewhere" / "y.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "good.wav").symlink_to(tmp_path / "b.WAV")
    (tmp_path / "linked").symlink_to(tmp_path.parent / "elsewhere")
    os.mkfifo(tmp_path / "pipe.wav")
    found = find_files(tmp_path, {".wav"}, tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found.usable] == ["a/x.wav", "b.WAV", "good.wav"]
    assert {each.what: each.why.split(";")[0] for each in found.unusable} == {
        "c.m4a": ".m4a is not read",
        "d.WMA": ".wma is not read",
        "gone.wav": "a link to a file that does not exist",
        "linked": "a link to a folder, which is not followed",
        "pipe.wav": "not a file",
    }
    assert [path.name for path in found.hidden] == [".f.wav", "h.wav"]
    assert [path.name for path in found.others] == ["e.txt"]


def test_names_that_are_not_utf8_are_written_escaped(tmp_path: Path) -> None:
    touch(tmp_path / os.fsdecode(b"caf\xe9.m4a"))
    assert [each.what for each in find_files(tmp_path, {".wav"}).unusable] == ["caf\\xe9.m4a"]


@pytest.mark.parametrize("name", ["sub/b.wav", "sub\\b.wav", "./sub/b.wav", ".\\sub\\b.wav", "sub//b.wav"])
def test_separators(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "sub" / "b.wav")
    assert file_named(tmp_path, name) == tmp_path / "sub" / "b.wav"
    assert file_named(tmp_path, str(tmp_path / "sub" / "b.wav")) == tmp_path / "sub" / "b.wav"


def test_a_file_whose_name_has_a_backslash(tmp_path: Path) -> None:
    touch(tmp_path / "a\\b.wav")
    assert file_named(tmp_path, "a\\b.wav") == tmp_path / "a\\b.wav"


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_text", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Ünï/café.wav", "ガ/が.wav", "각.wav", "Å\\ö.wav"])
def test_accents_however_composed(tmp_path: Path, on_disk: str, in_text: str, name: str) -> None:
    path = tmp_path / unicodedata.normalize(on_disk, name.replace("\\", "/"))
    touch(path)
    assert file_named(tmp_path, unicodedata.normalize(in_text, name)) == path


@pytest.mark.parametrize(
    "name", ["../x.wav", "..\\x.wav", "/etc/passwd", "C:\\x.wav", "a/../../x.wav", "a\0b", "/a\0b", "\\\\host\\x.wav"]
)
def test_nothing_outside_is_read(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "x.wav")
    (tmp_path / "in").mkdir()
    assert "points outside in/; refused" in str(file_named(tmp_path / "in", name))


@pytest.mark.parametrize("name", ["", ".", "gone.wav", "x" * 5000, "x.wav/y.wav", "in"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "x.wav", tmp_path / "in" / "y.wav")
    assert isinstance(file_named(tmp_path, name), str)


def result(name: str, sound: str | None = None) -> Entry:
    words = {"prompt": "a", "negative_prompt": ""}
    return Entry(picture=f"{name}.png", sound=sound, seed=0, candidate_seed=0, seconds=1, loop=False, **words)


def test_listed_results_that_are_gone_are_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, [result("1"), result("2", "2.wav"), result("3", "3.wav")])
    for name in ("1.png", "2.png", "3.wav", "extra.png"):
        (tmp_path / name).touch()
    files, left_out = tile_paths([tmp_path])
    assert [path.name for path in files] == ["1.png", "2.png"]
    assert [(each.what, each.why) for each in left_out] == [
        ("3.png", "listed in manifest.json, and not there any more")
    ]
    _, left_out = files_given([tmp_path], [".wav"], "sounds")
    assert [each.what for each in left_out] == ["2.wav"]
    assert description(tmp_path)["kind"] == "folder of results"


@pytest.mark.parametrize("content", ['{"results": [', '{"results": [{"picture": 5}]}', '{"results": 5}'])
def test_a_damaged_list_of_results_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "manifest.json").write_text(content)
    files, (left_out,) = tile_paths([tmp_path])
    assert [path.name for path in files] == ["1.png"]
    assert (left_out.what, "all files of the folder" in left_out.why) == ("manifest.json", True)


@pytest.mark.parametrize("content", ["{}", "[1, 2]", '{"name": "a web application"}'])
def test_the_manifest_of_another_program_is_no_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "manifest.json").write_text(content)
    assert tile_paths([tmp_path]) == ([tmp_path / "1.png"], [])

"""Which files of a folder are clips, which only look like one, and how a manifest names them."""

import os
import unicodedata
from pathlib import Path

import pytest

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.evaluation.clips import Clip, find_clips
from sdxl_mel.evaluation.prompts import pair_prompts, read_manifest


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def test_what_looks_like_a_clip_is_one_or_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.png", "b.m4a", "deep/c.MP3", ".d.wav", "offsets/e.png", "out/f.wav", b"g\xe9.wav")
    (tmp_path / "h.flac").symlink_to("gone.flac")
    clips, unusable = find_clips(tmp_path, "test", tmp_path / "out")
    assert [clip.name for clip in clips] == ["a.wav", "deep/c.MP3", "g\\xe9.wav"]
    assert [each.what for each in unusable] == ["b.m4a", "h.flac"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens and cannot be read")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to("/proc/self/mem")
    clips, unusable = find_clips(tmp_path, "test")
    assert [clip.name for clip in clips] == ["a.wav"]
    assert [(each.what, each.why) for each in unusable] == [("b.wav", "cannot be read (Input/output error)")]


@pytest.mark.parametrize(
    ("in_manifest", "on_disk"),
    [
        (unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "é.wav")),
        (unicodedata.normalize("NFD", "ü/ä.wav"), unicodedata.normalize("NFC", "ü/ä.wav")),
        ("sub\\a.wav", "sub/a.wav"),
        ("C:\\clips\\a.wav", "a.wav"),
    ],
)
def test_a_manifest_names_clips_as_other_systems_do(tmp_path: Path, in_manifest: str, on_disk: str) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(f'file;prompt\r\n{in_manifest};"mel spectrogram, slow\n piano"\r\n'.encode("utf-16"))
    prompts, unmatched = pair_prompts([Clip(on_disk, tmp_path / on_disk, "")], tmp_path, manifest, "mel spectrogram")
    assert (prompts, unmatched) == ({on_disk: "slow\n piano"}, [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", 'file,prompt\na,"b\nc,d\n', "line 2: a quote that is opened here is not closed"),
        ("m.csv", "file,prompt\na\n", "line 2: has no prompt"),
        ("m.jsonl", '{"file": "a", "prompt": NaN}\n', "line 1: has no prompt"),
        ("m.json", "[" * 50_000, "nested too deep"),
        ("m.csv", "file,prompt\n", "no rows"),
        ("m.xml", "", "expected a table"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((InputError, FormatError), match=message):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "row", "why"),
    [
        ("prompts.jsonl", '{"file": "a.wav", "prompt": "b"}\n["c"]\n', "prompts.jsonl, line 2", "not a JSON object"),
        ("prompts.csv", "file,prompt\nc.wav,\na.wav,b\n", "prompts.csv, line 2", "has no prompt"),
        ("metadata.csv", "file_name,caption\na.wav,b\n,slow\n", "metadata.csv, line 3", "has no file"),
    ],
)
def test_good_rows_of_a_manifest_survive_a_bad_one(tmp_path: Path, name: str, content: str, row: str, why: str) -> None:
    (tmp_path / name).write_text(content)
    for given in (None, tmp_path / name):
        prompts, bad = pair_prompts([Clip("a.wav", tmp_path / "a.wav", "")], tmp_path, given, "mel spectrogram")
        assert prompts == {"a.wav": "b"}
        assert [(each.what, each.why) for each in bad] == [(row, why)]

"""A good file next to bad ones is used, and each of the others is named with its reason."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdxl_mel.cli import main
from sdxl_mel.files.spectrogram import read_spectrogram
from tests.sounds import FIXTURES

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def flac(seconds: float = 1.0) -> bytes:
    """Return a FLAC that states no length, as recorders stream it."""
    content = io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(int(seconds * 16000)) * 0.1
    soundfile.write(content, noise, 16000, format="FLAC")
    streamed = bytearray(content.getvalue())
    streamed[21] &= 0xF0
    streamed[22:26] = bytes(4)
    return bytes(streamed)


def test_each_sound_of_a_folder_is_encoded_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    music, out = tmp_path / "music", tmp_path / "out"
    music.mkdir()
    (music / "good.flac").write_bytes((FIXTURES / "band.flac").read_bytes())
    (music / "streamed.flac").write_bytes(flac())
    Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.flac")).write_bytes(flac())
    (music / "cut.flac").write_bytes(flac()[:5000])
    (music / "pointer.mp3").write_bytes(POINTER)
    (music / "song.m4a").write_bytes(b"ftyp")
    (music / "dangling.mp3").symlink_to(music / "nowhere.mp3")
    words = ["encode", music, "--out", out, "--preset", "mini", "--seconds", "0.5", "--quiet"]
    assert main([str(word) for word in words]) == 3
    made = {os.fsencode(path.stem) for path in out.iterdir()}
    assert made == {b"good", b"streamed", b"caf\xe9"}
    said = capsys.readouterr().out
    for name, reason in {
        "cut.flac": "lost sync",
        "pointer.mp3": "a Git LFS pointer",
        "song.m4a": "convert it",
        "dangling.mp3": "a link to a file that does not exist",
    }.items():
        (line,) = (line for line in said.splitlines() if line.startswith("skipped") and name in line)
        assert reason in line
    assert sum(line.startswith("skipped") for line in said.splitlines()) == 4
    record = read_spectrogram(Path(os.fsdecode(os.fsencode(out) + b"/caf\xe9.png"))).record
    assert record is not None
    assert list(record.inputs) == ["caf\\xe9.flac"]


@pytest.mark.parametrize("folders", [1, 2])
def test_two_sounds_of_one_stem_are_encoded_once_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folders: int
) -> None:
    given = [tmp_path / "0", tmp_path / f"{folders - 1}"]
    for folder, names in zip(given, (("a.flac", "b.flac"), ("a.ogg", "c.flac"))):
        folder.mkdir(exist_ok=True)
        for name in names:
            soundfile.write(folder / name, np.random.default_rng(0).standard_normal(16000) * 0.1, 16000)
    words = [
        "encode",
        *dict.fromkeys(given),
        "--out",
        tmp_path / "out",
        "--preset",
        "mini",
        "--seconds",
        "0.4",
        "--quiet",
    ]
    assert main([str(word) for word in words]) == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "c.png"}
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped"))
    assert "a.ogg: " in line
    assert "a.flac becomes a.png already" in line


def test_each_picture_of_a_folder_is_inverted_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    words = ["encode", FIXTURES / "band.flac", "--preset", "mini", "--seconds", "0.4", "--out", pictures / "good.PNG"]
    assert main([str(word) for word in words] + ["--quiet"]) == 0
    content = (pictures / "good.PNG").read_bytes()
    (pictures / "cut.png").write_bytes(content[:300])
    (pictures / "pointer.png").write_bytes(POINTER)
    (pictures / "lossy.jpg").write_bytes(b"\xff\xd8")
    assert main(["invert", str(pictures), "--out", str(out), "--method", "fast", "--quiet"]) == 3
    assert [path.name for path in out.iterdir()] == ["good.wav"]
    said = capsys.readouterr().out
    for name in ("cut.png", "pointer.png", "lossy.jpg"):
        assert any(line.startswith("skipped") and name in line for line in said.splitlines()), name


def test_tiles_of_a_folder_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = tmp_path / "tiles"
    words = ["encode", FIXTURES / "band.flac", "--preset", "mini", "--seconds", "0.4", "--out", tiles / "1.png"]
    assert main([str(word) for word in words] + ["--quiet"]) == 0
    content = (tiles / "1.png").read_bytes()
    (tiles / "2.png").write_bytes(POINTER)
    (tiles / "3.png").write_bytes(content)
    assert main(["stitch", str(tiles), "--overlap", "4", "--out", str(tmp_path / "long.png"), "--quiet"]) == 3
    assert "skipped" in capsys.readouterr().out
    assert read_spectrogram(tmp_path / "long.png").levels.shape[1] == 2 * 24 - 4
    (tiles / "3.png").write_bytes(b"")
    assert main(["stitch", str(tiles), "--out", str(tmp_path / "other.png"), "--quiet"]) == 2
    assert "1 tile that can be read" in capsys.readouterr().err

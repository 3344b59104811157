"""encode, invert, roundtrip and inspect through the command line: results, records, and every bad input in one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sdxl_mel.cli import main
from sdxl_mel.files.audio import read_audio, read_provenance
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.sound.melspec import PRESETS, named_spec
from tests.sounds import FIXTURES, tone

MINI = PRESETS["mini"]
BAND = str(FIXTURES / "band.flac")
MINIMIDI = Path(os.environ.get("SDXL_MEL_MINIMIDI", "data/minimidi"))
"""Where pictures of puckowski/sd-spectrograms lie, for the test that wants some; it is skipped without."""


def run(*words: str | Path) -> int:
    return main([str(word) for word in words] + ["--quiet"])


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a mini picture of the band."""
    out = tmp_path_factory.mktemp("tile") / "tile.png"
    assert run("encode", BAND, "--out", out, "--preset", "mini") == 0
    return out


def test_a_tile_and_its_sound_say_what_made_them(tile: Path, tmp_path: Path) -> None:
    picture = read_spectrogram(tile)
    assert picture.levels.shape == (128, 256, 1)
    assert picture.record is not None
    assert picture.record.settings["preset"] == "mini"
    assert list(picture.record.inputs) == ["band.flac"]
    assert run("invert", tile, "--out", tmp_path / "a.wav", "--method", "fast", "--seed", "3") == 0
    samples, rate = read_audio(tmp_path / "a.wav")
    assert (samples.shape, rate) == ((1, 256 * 256), 16000)
    record = read_provenance(tmp_path / "a.wav")["record"]
    assert record["settings"]["seed"] == 3
    assert record["settings"]["picture"]["stage"] == "encode"


def test_the_same_command_makes_the_same_bytes(tile: Path, tmp_path: Path) -> None:
    again = tmp_path / "tile.png"
    run("encode", BAND, "--out", again, "--preset", "mini")
    assert again.read_bytes() == tile.read_bytes()
    for suffix in ("flac", "ogg"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
        for out in (first, second):
            run("invert", tile, "--out", out, "--method", "fast")
        assert first.read_bytes() == second.read_bytes()


def test_a_long_picture_of_part_of_a_sound(tmp_path: Path) -> None:
    assert (
        run("encode", BAND, "--out", tmp_path / "a.png", "--preset", "mini", "--start", "0.5", "--seconds", "5.2") == 0
    )
    assert read_spectrogram(tmp_path / "a.png").levels.shape[1] == int(5.2 * 16000 / 256) // 8 * 8


def test_a_folder_becomes_a_folder_and_what_is_broken_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for name in ("band", "piano"):
        (music / f"{name}.flac").write_bytes((FIXTURES / f"{name}.flac").read_bytes())
    (music / "broken.wav").write_bytes(b"RIFF")
    assert run("encode", music, "--out", tmp_path / "pictures", "--preset", "mini") == 3
    assert "broken.wav" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["band.png", "piano.png"]
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no")
    assert (
        run("invert", tmp_path / "pictures", "--out", tmp_path / "sounds", "--method", "fast", "--suffix", "flac") == 3
    )
    assert sorted(path.name for path in (tmp_path / "sounds").iterdir()) == ["band.flac", "piano.flac"]


def test_music_in_a_folder_that_is_not_encoded_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    music = tmp_path / "music"
    (music / "more").mkdir(parents=True)
    for name in ("good.flac", "more/deep.flac"):
        (music / name).write_bytes(Path(BAND).read_bytes())
    (music / "other.m4a").write_bytes(b"sound")
    (music / "gone.ogg").symlink_to("nothing.ogg")
    assert run("encode", music, "--out", tmp_path / "out", "--preset", "mini") == 3
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("wrote", "skipped other.m4a", "skipped gone.ogg", "more: a folder inside"))


def test_processes_make_the_pictures_of_one(tmp_path: Path, tile: Path) -> None:
    sounds = [FIXTURES / "band.flac", FIXTURES / "piano.flac"]
    assert run("encode", *sounds, "--out", tmp_path, "--preset", "mini", "--jobs", "2") == 0
    assert (tmp_path / "band.png").read_bytes() == tile.read_bytes()


def test_roundtrip_prints_the_ladder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ladder.json"
    assert run("roundtrip", BAND, "--preset", "mini", "--seconds", "2", "--out", out) == 0
    printed = capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["original", "mel -> best", "8 bits -> best", "8 bits -> fast"]
    assert all(step in printed for step in rows)
    assert rows["original"]["mel_l1_db"] == 0
    # What more iterations buy is nearness to the picture; what 128 rows do not hold, they cannot bring back.
    assert rows["8 bits -> best"]["pixel_rmse"] < rows["8 bits -> fast"]["pixel_rmse"] < 0.02


def test_inspect_shows_pictures_and_sounds(tile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("invert", tile, "--out", tmp_path / "a.ogg", "--method", "fast")
    capsys.readouterr()
    for path, kind in ((tile, "spectrogram picture, L"), (tmp_path / "a.ogg", "sound, OGG VORBIS")):
        assert run("inspect", path) == 0
        assert kind in capsys.readouterr().out
        assert run("inspect", path, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["melspec"]["format"] == "mini"
        assert found["record"]["stage"] in ("encode", "invert")


def test_inspect_shows_folders_and_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "run.json").write_text(json.dumps({"spec": MINI.model_dump(mode="json"), "step": 5}))
    save_file(
        {"a": np.zeros((2, 3), np.float16)}, tmp_path / "a.safetensors", {"spec": MINI.to_json(), "note": "hello"}
    )
    for path, kind in ((run_folder, "training run"), (tmp_path / "a.safetensors", "tensors")):
        assert run("inspect", path, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == kind
        assert found["spec"]["format"] == "mini"


def write_sounds(folder: Path) -> None:
    rate = 16000
    good = tone(440.0, 5.0, rate)[0]
    soundfile.write(folder / "short.wav", good[:8000], rate)
    soundfile.write(folder / "one.wav", good[:1], rate)
    soundfile.write(folder / "none.wav", good[:0], rate)
    soundfile.write(folder / "silent.wav", good * 0, rate)
    soundfile.write(folder / "nan.wav", np.where(np.arange(good.size) == 99, np.nan, good), rate, subtype="FLOAT")
    soundfile.write(folder / "good.wav", good, rate)
    whole = (folder / "good.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:50_000])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not a sound\n" * 50)
    (folder / "hollow").mkdir()


BAD_SOUNDS = {
    "missing.wav": "no such file",
    "hollow": "no sounds in this folder",
    "empty.wav": "an empty file",
    "cut.wav": "cut off",
    "text.wav": "not a readable sound file",
    "none.wav": "no samples",
    "one.wav": "nothing is padded",
    "short.wav": "0.50 s long",
    "silent.wav": "silent",
    "nan.wav": "NaN or infinite",
}


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_a_bad_sound_is_one_line_and_code_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sounds(tmp_path)
    out = tmp_path / "out" / "a.png"
    assert run("encode", tmp_path / name, "--out", out, "--preset", "mini") == 2
    error = capsys.readouterr().err.strip()
    assert BAD_SOUNDS[name] in error
    assert name in error
    assert "\n" not in error
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("rate", "channels", "shape"), [(8000, 1, 1), (192000, 2, 3), (44100, 6, 3), (48000, 7, 1), (11025, 2, 3)]
)
def test_any_rate_and_any_channels(rate: int, channels: int, shape: int, tmp_path: Path) -> None:
    samples = np.concatenate([tone(300.0 * (1 + index), 12.5, rate) for index in range(channels)])
    soundfile.write(tmp_path / "a.wav", samples.T, rate)
    assert run("encode", tmp_path / "a.wav", "--out", tmp_path / "a.png", "--preset", "web") == 0
    assert read_spectrogram(tmp_path / "a.png").levels.shape == (256, 512, shape)


def write_pictures(folder: Path, tile: Path) -> None:
    whole = tile.read_bytes()
    image = Image.open(tile)
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    image.save(folder / "resaved.png")
    image.convert("L").save(folder / "lossy.jpg")
    (folder / "disguised.png").write_bytes((folder / "lossy.jpg").read_bytes())
    (folder / "hollow").mkdir()


BAD_PICTURES = {
    "missing.png": "no such file; expected a picture",
    "hollow": "no pictures in this folder",
    "empty.png": "an empty file",
    "cut.png": "not a readable PNG",
    "text.png": "not a readable PNG",
    "resaved.png": "--format NAME",
    "lossy.jpg": "a JPEG picture",
    "disguised.png": "a JPEG picture",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_one_line_and_code_2(
    name: str, tile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path, tile)
    out = tmp_path / "out" / "a.wav"
    assert run("invert", tmp_path / name, "--out", out) == 2
    error = capsys.readouterr().err.strip()
    assert BAD_PICTURES[name] in error
    assert name in error
    assert "\n" not in error
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encode", BAND, "--out", "x.png", "--preset", "stdd"], "did you mean 'std'"),
        (["encode", BAND, "--out", "x.jpg"], "pictures are written as .png"),
        (["encode", BAND, BAND, "--out", "x.png"], "one file for 2 sounds"),
        (["encode", BAND, "--out", "x.png", "--start", "-1"], "greater than or equal to 0"),
        (["encode", BAND, "--out", "x.png", "--seconds", "0.001"], "shorter than 8 frames"),
        (["encode", "--out", "x.png"], "AUDIO"),
        (["invert", "a.png", "b.png", "--out", "x.wav"], "one file for 2 pictures"),
        (["invert", "a.png", "--out", "x.wav", "--format", "minmidi"], "did you mean 'minimidi'"),
        (["invert", "a.png", "--out", "x.wav", "--method", "bestest"], "best"),
        (["inspect", "missing"], "no such file"),
        (["inspect", str(FIXTURES)], "not a folder that the toolkit writes"),
        (["roundtrip", BAND, "--start", "5.9"], "too short to measure"),
    ],
)
def test_bad_settings_are_one_line_and_code_2(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not MINIMIDI.is_dir(), reason="the pictures of DiffusionMiniMIDI are not here")
def test_minimidi_pictures_become_music(tmp_path: Path) -> None:
    from sdxl_mel.sound.loudness import integrated_loudness, true_peak_db

    path = sorted(MINIMIDI.glob("*.png"))[0]
    assert run("invert", path, "--out", tmp_path / "a.wav", "--format", "minimidi", "--method", "fast") == 0
    samples, rate = read_audio(tmp_path / "a.wav")
    assert (samples.shape, rate) == ((1, 512 * 512), 16000)
    loudness, peak = integrated_loudness(samples, rate), true_peak_db(samples, rate)
    assert loudness == pytest.approx(-16.0, abs=0.2) or (loudness < -16 and peak == pytest.approx(-1.0, abs=0.2))


@pytest.mark.skipif(not MINIMIDI.is_dir(), reason="the pictures of DiffusionMiniMIDI are not here")
def test_minimidi_pictures_are_inverted_better_than_by_librosa() -> None:
    from bench.consistency import self_consistency_db
    from sdxl_mel.sound.encoding import emphasise
    from sdxl_mel.sound.inversion.griffin_lim import librosa_griffin_lim
    from sdxl_mel.sound.inversion.methods import checked_picture, invert
    from sdxl_mel.sound.pixels import dequantise, mel_of_values, quantise

    spec = named_spec("minimidi")
    for path in sorted(MINIMIDI.glob("*.png")):
        picture = checked_picture(read_spectrogram(path, spec).levels, spec)[:, :160]
        values = dequantise(picture)
        theirs = librosa_griffin_lim(mel_of_values(values, spec), spec, seed=0, iterations=256)
        ours = emphasise(invert(picture, spec, "best"), spec.preemphasis)
        levels = quantise(values)
        assert self_consistency_db(levels, ours, spec) < self_consistency_db(levels, theirs, spec)

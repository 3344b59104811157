"""The stage from a folder of music to a dataset: pixels, metadata, resume to the byte, and bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sdxl_mel.dataset import render
from sdxl_mel.errors import FormatError, InputError, MismatchError, ResourceError
from sdxl_mel.files.audio import read_audio
from sdxl_mel.files.dataset import read_dataset
from sdxl_mel.files.spectrogram import read_spectrogram
from sdxl_mel.files.writer import only_writer
from sdxl_mel.record import sha256_file
from sdxl_mel.sound.encoding import cut_clip, encode_clip, prepare_signal
from sdxl_mel.sound.melspec import PRESETS
from sdxl_mel.stages.prepare import Config, Report, run
from tests.dataset.music import melody, write_folder, write_music, write_samples

SPEC = PRESETS["mini"]
CAPTIONS = {
    "one.wav": "“Calm” piano and violin, perfect for a rainy day\nslow piano with violin",
    "two.flac": "fast flute and piano, no vocals",
    "three.ogg": "harp and cello",
    "four.mp3": "drums and bass",
    "five.opus": "a female singer over guitar",
    "six.wav": "slow oboe",
}


def prepare(music: Path, out: Path, **options) -> Report:
    return run(Config(**{"music": music, "out": out, "preset": "mini", "jobs": 1, "test": 0.2} | options))


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("music"), CAPTIONS)


@pytest.fixture(scope="module")
def prepared(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "set"
    report = prepare(music, out, layout="kohya")
    assert report.exit_code == 0
    assert "captions: " in report.summary()
    return out


def test_every_format_is_in_and_every_caption(prepared: Path) -> None:
    dataset = read_dataset(prepared)
    items = {item.track: item for items in dataset.splits.values() for item in items}
    assert set(items) == set(CAPTIONS)
    assert {item.track for item in dataset.splits["regularization"]} == {"five.opus"}
    assert items["five.opus"].captions == ("song with vocals",)
    assert items["one.wav"].captions == (
        "mel spectrogram, Calm piano and violin",
        "mel spectrogram, slow piano with violin",
    )
    assert items["two.flac"].captions == ("mel spectrogram, fast flute and piano",)
    assert items["one.wav"].instruments == ("piano", "violin")
    assert dataset.splits["test"]
    assert dataset.splits["train"]


def test_pixels_are_what_the_codec_makes_of_the_same_samples(music: Path, prepared: Path) -> None:
    dataset = read_dataset(prepared)
    for item in (item for items in dataset.splits.values() for item in items):
        signal_ = prepare_signal(*read_audio(music / item.track), SPEC)
        start = round(item.offset * SPEC.sample_rate)
        assert start % SPEC.hop_length == 0
        expected = encode_clip(cut_clip(signal_, start, SPEC.width, SPEC), SPEC)
        picture = read_spectrogram(dataset.path(item))
        assert np.array_equal(picture.levels, expected)
        assert picture.spec == SPEC
        assert picture.record is not None
        assert picture.record.inputs == {"audio": sha256_file(music / item.track)} == {"audio": item.sha256}


def test_other_trainers_find_their_layout(prepared: Path) -> None:
    folder = prepared / "kohya/images/1_mel-spectrogram"
    assert {path.suffix for path in folder.iterdir()} == {".png", ".txt"}
    names = {path.stem for path in folder.glob("*.png")}
    assert (
        names
        == {path.stem for path in folder.glob("*.txt")}
        == {path.stem for path in (prepared / "train").glob("*.png")}
    )
    assert (next(iter((prepared / "kohya/regularization").iterdir()))).name == "1_song-with-vocals"


def test_the_report_shows_clips_and_captions(prepared: Path) -> None:
    page = (prepared / "report.html").read_text(encoding="utf-8")
    for part in ("<mel-player", "data:image/png", "Calm", "rule", "LUFS", "seconds of clips a track", "regularization"):
        assert part in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "it needs nothing else"


def test_the_caption_log_has_every_caption(prepared: Path) -> None:
    rows = [json.loads(line) for line in (prepared / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    given = [row["before"] for row in rows if row["before"]]
    assert given == [line for name in sorted(CAPTIONS) for line in CAPTIONS[name].splitlines()]


def test_again_is_the_same_and_renders_nothing(music: Path, prepared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(prepared, copy)
    before, pictures = tree(copy), {path: path.stat().st_mtime_ns for path in copy.rglob("*.png")}
    (copy / "train" / ".left.png.1.tmp").write_bytes(b"half")
    prepare(music, copy, layout="kohya")
    assert tree(copy) == before
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in pictures.items() if "kohya" not in path.parts)
    prepare(music, copy)
    assert not (copy / "kohya").exists()


def test_changed_and_removed_music_changes_just_that(music: Path, prepared: Path, tmp_path: Path) -> None:
    copy, mine = tmp_path / "set", tmp_path / "music"
    shutil.copytree(prepared, copy)
    shutil.copytree(music, mine)
    write_music(mine / "six.wav", 99)
    (mine / "four.mp3").unlink()
    (mine / "three.txt").write_text("harp alone")
    old = {path.name: path.stat().st_mtime_ns for path in copy.glob("*/*.png")}
    prepare(mine, copy)
    new = {path.name: path.stat().st_mtime_ns for path in copy.glob("*/*.png")}
    assert {name for name in old if name not in new} == {name for name in old if name.startswith(("four", "six"))}
    assert {name for name in new if name not in old} == {name for name in new if name.startswith("six")}
    assert all(new[name] == old[name] for name in set(new) & set(old))
    assert read_dataset(copy).counts
    assert (tree(copy)).keys() == tree(_fresh(mine, tmp_path / "fresh")).keys()


def _fresh(music: Path, out: Path) -> Path:
    prepare(music, out)
    return out


def test_time_offsets_are_shifted_clips(music: Path, tmp_path: Path) -> None:
    prepare(music, tmp_path / "set", offsets=2, count=1)
    dataset = read_dataset(tmp_path / "set")
    item = dataset.splits["train"][0]
    assert len(item.offset_files) == 2
    signal_ = prepare_signal(*read_audio(music / item.track), SPEC)
    start = round(item.offset * SPEC.sample_rate) + 4 * SPEC.hop_length
    expected = encode_clip(cut_clip(signal_, start, SPEC.width, SPEC), SPEC)
    assert np.array_equal(read_spectrogram(dataset.path(item, 1)).levels, expected)


def test_loudness_is_a_tracks_own(tmp_path: Path) -> None:
    loud, quiet = melody(1, 6.0), melody(2, 6.0) * 0.1
    path = write_samples(tmp_path / "music/long.wav", np.concatenate([loud, quiet], axis=1))
    path.with_suffix(".txt").write_text("piano")
    prepare(tmp_path / "music", tmp_path / "set", stride=5.5, test=0, validation=0)
    first, second = read_dataset(tmp_path / "set").splits["train"]
    assert 14 < first.loudness_lufs - second.loudness_lufs < 26


def test_copies_and_bad_clips_are_left_out_with_reasons(music: Path, tmp_path: Path) -> None:
    mine = tmp_path / "music"
    shutil.copytree(music, mine)
    shutil.copy(mine / "one.wav", mine / "same-bytes.wav")
    write_samples(mine / "same-sound.mp3", read_audio(mine / "one.wav")[0] * 0.7)
    write_music(mine / "short.wav", 50, seconds=3.0)
    write_samples(mine / "silent.wav", np.zeros((1, 7 * 16000), np.float32))
    (mine / "broken.mp3").write_bytes(b"not music")
    (mine / "empty.wav").write_bytes(b"")
    for name in ("same-bytes", "same-sound", "short", "silent", "broken", "empty"):
        (mine / f"{name}.txt").write_text("bells")
    report = prepare(mine, tmp_path / "set")
    dataset = read_dataset(tmp_path / "set")
    assert report.exit_code == 3
    assert {entry.what for entry in dataset.skipped} == {"broken.mp3", "empty.wav"}
    why = {entry.what: entry.why for entry in dataset.rejected}
    assert why["same-bytes.wav"] == "the same bytes as one.wav"
    assert why["same-sound.mp3 at 1.0 s"].startswith("near-duplicate of one.wav at 1.0 s (9")
    assert why["short.wav"] == "too short: 3.0 s, a clip needs 6.1 s"
    assert why["silent.wav at 1.0 s"].startswith("silence: 100%")
    before = tree(tmp_path / "set")
    prepare(mine, tmp_path / "set")
    assert tree(tmp_path / "set") == before


def test_a_spec_is_not_mixed_and_a_folder_not_overwritten(music: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"made with different specs: .*sample_rate 16000 against 22050"):
        prepare(music, prepared, preset="web")
    with pytest.raises(InputError, match="is, or holds, the source"):
        prepare(music, music)
    with pytest.raises(InputError, match="is, or holds, the source"):
        prepare(music, music.parent)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty, and not a dataset of ours"):
        prepare(music, tmp_path / "mine")
    with pytest.raises(InputError, match="a file; --out is a folder"):
        prepare(music, tmp_path / "mine" / "thesis.txt")
    with pytest.raises(InputError, match="under one frame"):
        prepare(music, tmp_path / "other", stride=0.001)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing keeps processes apart there")
def test_a_folder_in_which_another_process_writes_is_left_alone(music: Path, prepared: Path) -> None:
    before = tree(prepared)
    with only_writer(prepared), pytest.raises(InputError, match="another process is writing in it"):
        prepare(music, prepared)
    assert tree(prepared) == before


def test_nothing_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    with pytest.raises(InputError, match="no track to prepare: no audio files were found"):
        prepare(tmp_path / "music", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    write_folder(tmp_path / "music", {"a.wav": "piano"}, seconds=2.0)
    with pytest.raises(FormatError, match=r"no clip is left: a\.wav: too short"):
        prepare(tmp_path / "music", tmp_path / "set")


@pytest.mark.parametrize("seed", range(4))
def test_of_few_songs_one_that_can_be_used_is_trained_on(music: Path, tmp_path: Path, seed: int) -> None:
    mine = tmp_path / "music"
    mine.mkdir()
    for name in ("one.wav", "six.wav"):
        shutil.copy(music / name, mine / name)
        shutil.copy((music / name).with_suffix(".txt"), mine)
    (mine / "broken.wav").write_bytes(b"not music")
    (mine / "again.wav").write_bytes((mine / "one.wav").read_bytes())
    for name in ("broken", "again"):
        (mine / f"{name}.txt").write_text("drums")
    report = prepare(mine, tmp_path / "set", seed=seed, test=0.9, validation=0)
    assert {split: count["tracks"] for split, count in report.counts.items()} == {"train": 1, "test": 1}
    assert "a small set: 1 tracks to train on, and none for validation; a LoRA learns so few by heart" in report.notes


def test_a_name_that_is_not_utf8_is_read_and_written_escaped(music: Path, tmp_path: Path) -> None:
    mine, name = tmp_path / "music", os.fsdecode(b"caf\xe9")
    mine.mkdir()
    shutil.copy(music / "one.wav", mine / f"{name}.wav")
    (mine / f"{name}.txt").write_text("piano")
    (mine / f"{name}.m4a").write_bytes(b"sound")
    report = prepare(mine, tmp_path / f"set-{name}", layout="kohya")
    assert [each.what for each in report.skipped] == ["caf\\xe9.m4a"]
    assert {item.track for item in read_dataset(report.out).splits["train"]} == {"caf\\xe9.wav"}
    assert "caf\\xe9.wav" in (report.out / "report.html").read_text(encoding="utf-8")


def test_a_source_without_anything_to_train_on_says_so(music: Path, tmp_path: Path) -> None:
    (tmp_path / "music/test").mkdir(parents=True)
    shutil.copy(music / "one.wav", tmp_path / "music/test/one.wav")
    (tmp_path / "music/test/one.txt").write_text("piano")
    assert prepare(tmp_path / "music", tmp_path / "set").notes == ("no clip to train on: all are in test",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"music": None}, "or --source demo"),
        ({"source": "demo"}, "leave MUSIC out"),
        ({"validation": 0.6, "test": 0.5}, "leave nothing to train on"),
        ({"class_caption": " "}, "class_caption is empty"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**{"music": tmp_path, "out": tmp_path / "set"} | options)


def test_a_full_disk_leaves_what_is_whole(music: Path, prepared: Path, tmp_path: Path, monkeypatch) -> None:
    out, written = tmp_path / "set", []
    real = Path.open

    def full(path: Path, mode: str = "r", *more: object, **others: object) -> object:
        if ".png." in path.name and "w" in mode:
            if len(written) == 3:
                with real(path, "wb") as file:
                    file.write(b"half")
                raise OSError(28, "No space left on device")
            written.append(path)
        return real(path, mode, *more, **others)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResourceError, match="the disk is full .*free some space and run it again"):
        prepare(music, out, layout="kohya")
    assert not list(out.rglob("*.tmp"))
    assert len(list(out.rglob("*.png"))) == 3
    monkeypatch.undo()
    prepare(music, out, layout="kohya")
    assert tree(out) == tree(prepared)


def test_killed_at_any_point_and_run_again_is_the_same(music: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "sdxl_mel", "prepare", str(music), "--out", str(out), "--preset", "mini"]
    command += ["--test", "0.2", "--layout", "kohya", "--jobs", "1", "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.png"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "dataset.json").exists()
    prepare(music, out, layout="kohya")
    assert tree(out) == tree(prepared)


def test_a_voice_that_no_caption_mentions_is_heard(music: Path, tmp_path: Path, monkeypatch) -> None:
    heard = iter([0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(render, "voice_probability", lambda samples, rate: next(heard))
    prepare(music, tmp_path / "set", listen=True)
    dataset = read_dataset(tmp_path / "set")
    first = sorted(CAPTIONS)[0]
    assert {item.track for item in dataset.splits["regularization"]} == {"five.opus", first}


def test_two_workers_make_what_one_makes(music: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(music, tmp_path / "set", layout="kohya", jobs=2)
    assert tree(tmp_path / "set") == tree(prepared)

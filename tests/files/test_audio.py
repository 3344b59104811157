"""Sound files: what is written comes back, with its record, and what is broken is named."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files.audio import CONTAINERS, open_audio, read_audio, read_provenance, write_audio
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import named_spec

RATE = 32000
RECORD = Record(stage="invert", settings={"seed": 7, "prompt": "Größe, 音楽 " + "x" * 4000}, inputs={"a.png": "0" * 64})
LOSSLESS = {("wav", None): 2**-15, ("wav", "PCM_24"): 2**-23, ("wav", "FLOAT"): 0.0, ("flac", "PCM_24"): 2**-23}


def music(channels: int = 2, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return np.stack([0.5 * np.sin(2 * np.pi * hz * time) for hz in (440.0, 660.0)[:channels]]).astype(np.float32)


@pytest.mark.parametrize(("kind", "tolerance"), LOSSLESS.items())
def test_lossless_files_return_their_samples(tmp_path: Path, kind: tuple[str, str | None], tolerance: float) -> None:
    path = tmp_path / f"a.{kind[0]}"
    write_audio(path, music(), RATE, subtype=kind[1])
    samples, rate = read_audio(path)
    assert rate == RATE
    assert np.abs(samples - music()).max() <= tolerance
    with soundfile.SoundFile(path) as file:
        assert file.subtype == (kind[1] or "PCM_16")


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_format_carries_sound_spec_and_record(tmp_path: Path, suffix: str) -> None:
    path, spec = tmp_path / f"a{suffix}", named_spec("std")
    write_audio(path, music(), RATE, RECORD, spec=spec)
    samples, rate = read_audio(path)
    assert rate == (48000 if suffix == ".opus" else RATE)
    assert samples.shape[0] == 2
    assert samples.shape[1] / rate == pytest.approx(0.5, abs=0.08 if suffix == ".mp3" else 0.001)
    middle = samples[:, samples.shape[1] // 4 : -samples.shape[1] // 4]
    np.testing.assert_allclose(middle.std(axis=1), 0.5 / np.sqrt(2), rtol=0.05)
    found = read_provenance(path)
    assert Record.model_validate(found["record"]) == RECORD
    assert type(spec).model_validate(found["melspec"]) == spec


SAME_BYTES = [("wav", None), ("wav", "FLOAT"), ("flac", None), ("ogg", None), ("opus", None), ("mp3", None)]


@pytest.mark.parametrize(("suffix", "subtype"), SAME_BYTES)
def test_the_same_sound_makes_the_same_bytes(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    import time

    contents = []
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.{suffix}", music(), RATE, RECORD, subtype)
        contents.append((tmp_path / f"{name}.{suffix}").read_bytes())
        if subtype == "FLOAT" and name == "a":
            time.sleep(1.1)  # Its PEAK chunk holds the second of the clock.
    assert contents[0] == contents[1]


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 15999), max_size=4), suffix=st.sampled_from(["wav", "flac"]))
def test_pieces_make_the_file_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    with open_audio(folder / f"pieces.{suffix}", RATE, 2) as writer:
        for piece in np.split(music(), sorted(cuts), axis=1):
            writer.write(piece)
    write_audio(folder / f"whole.{suffix}", music(), RATE)
    assert (folder / f"pieces.{suffix}").read_bytes() == (folder / f"whole.{suffix}").read_bytes()


def test_clipped_samples_are_counted(tmp_path: Path) -> None:
    loud = music() * np.float32(4)
    with open_audio(tmp_path / "a.wav", RATE, 2) as writer:
        writer.write(loud)
    assert writer.clipped == int((np.abs(loud) > 1).sum()) > 0
    assert np.abs(read_audio(tmp_path / "a.wav")[0]).max() <= 1
    with open_audio(tmp_path / "f.wav", RATE, 2, subtype="FLOAT") as writer:
        writer.write(loud)
    assert writer.clipped == 0
    np.testing.assert_array_equal(read_audio(tmp_path / "f.wav")[0], loud)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_audio(tmp_path / "a.wav", RATE, 1) as writer:
        writer.write(music(1))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_a_file_cut_in_half_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_audio(path, music(seconds=3.0), RATE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"cut off|not a readable"):
        read_audio(path)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_audio(path, music(seconds=3.0), RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = b"\x55" * len(content[middle : middle + 3000])
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"cut off|not a readable|no samples"):
        read_audio(path)


def test_other_things_that_are_no_sound(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes | None, str]] = {
        "missing.wav": (None, "no such file"),
        "empty.wav": (b"", "an empty file"),
        "text.wav": (b"hello world " * 99, "not a readable sound file"),
        "text.mp3": (b"hello world " * 99, "not a readable sound file"),
        "bytes.raw": (bytes(1000), "not a readable sound file"),
    }
    for name, (content, said) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said) as caught:
            read_audio(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="a folder"):
        read_audio(tmp_path)


def test_samples_that_are_none_or_not_numbers(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    with pytest.raises(FormatError, match="no samples"):
        read_audio(tmp_path / "none.wav")
    for wrong in (np.nan, np.inf):
        broken = music()
        broken[0, 100] = wrong
        soundfile.write(tmp_path / "wrong.wav", broken.T, RATE, subtype="FLOAT")
        with pytest.raises(FormatError, match="NaN or infinite"):
            read_audio(tmp_path / "wrong.wav")
    soundfile.write(tmp_path / "one.wav", np.full((1, 1), 0.5), RATE)
    assert read_audio(tmp_path / "one.wav")[0].shape == (1, 1)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write .xyz; use .wav"):
        write_audio(tmp_path / "a.xyz", music(), RATE)
    with pytest.raises(InputError, match="has no FLOAT; it can be PCM_16, PCM_24"):
        write_audio(tmp_path / "a.flac", music(), RATE, subtype="FLOAT")
    assert not list(tmp_path.iterdir())


def test_a_streamed_wav_and_foreign_comments_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, music(), RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert read_audio(path)[0].shape == music().shape
    with soundfile.SoundFile(tmp_path / "b.flac", "w", RATE, 1) as file:
        file.comment = "ripped by somebody"
        file.write(music(1).T)
    assert read_provenance(tmp_path / "b.flac") == {}

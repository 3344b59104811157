"""Sound files as other programs and recorders leave them: read to their end, or refused with the reason."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdxl_mel.errors import FormatError, InputError
from sdxl_mel.files import flac, mpeg, ogg
from sdxl_mel.files.audio import read_audio, sound_description, write_audio
from sdxl_mel.files.recording import Recording
from sdxl_mel.record import Record

RATE = 16000
SECONDS = 1.0


def noise(seconds: float = SECONDS, channels: int = 2) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((int(seconds * RATE), channels)) * 0.1).astype(np.float32)


def encoded(container: str, subtype: str | None = "PCM_16", samples: np.ndarray | None = None, **more: object) -> bytes:
    content = io.BytesIO()
    samples = noise() if samples is None else samples
    with soundfile.SoundFile(content, "w", RATE, samples.shape[1], subtype, format=container, **more) as file:
        file.write(samples)
    return content.getvalue()


def replaced(content: bytes, at: int, number: str, value: int) -> bytes:
    field = struct.pack(number, value)
    return content[:at] + field + content[at + len(field) :]


def read(tmp_path: Path, content: bytes, name: str = "a.wav") -> np.ndarray:
    (tmp_path / name).write_bytes(content)
    samples, rate = read_audio(tmp_path / name)
    assert rate == RATE
    return samples


PCM = {kind: encoded(kind) for kind in ("WAV", "RF64", "W64", "AIFF", "CAF", "AU")}
SIZE_AT = {
    "WAV": (PCM["WAV"].index(b"data") + 4, "<I"),
    "RF64": (PCM["RF64"].index(b"ds64") + 16, "<Q"),
    "W64": (PCM["W64"].index(b"data") + 16, "<Q"),
    "AIFF": (PCM["AIFF"].index(b"SSND") + 4, ">I"),
    "CAF": (PCM["CAF"].index(b"data") + 4, ">q"),
    "AU": (8, ">I"),
}
UNKNOWN_SIZES = {
    "WAV": (0, 0x7FFFF000, 0x80000000, 0x7FFFFFFF, 0x7FFFEFFC, 0xFFFFFFFF),
    "RF64": (0, 2**64 - 1),
    "W64": (0, 24, 2**63 - 1),
    "AIFF": (0, 0x7F000008, 0xFFFFFFFF),
    "CAF": (0, -1),
    "AU": (0, 0xFFFFFFFF),
}


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind, sizes in UNKNOWN_SIZES.items() for size in sizes])
def test_a_size_that_a_recorder_did_not_know_means_all_of_the_file(tmp_path: Path, kind: str, size: int) -> None:
    np.testing.assert_array_equal(
        read(tmp_path, replaced(PCM[kind], *SIZE_AT[kind], size)), read(tmp_path, PCM[kind], "whole")
    )


@pytest.mark.parametrize("kind", PCM)
def test_a_file_of_chunks_that_is_cut_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FormatError, match="cut off or damaged"):
        read(tmp_path, PCM[kind][: len(PCM[kind]) // 2])


@pytest.mark.parametrize("kind", PCM)
@pytest.mark.parametrize("share", [2, 4])
def test_a_size_that_is_too_small_is_no_end(tmp_path: Path, kind: str, share: int) -> None:
    at, number = SIZE_AT[kind]
    (size,) = struct.unpack_from(number, PCM[kind], at)
    small = replaced(PCM[kind], at, number, size // share // 8 * 8)
    np.testing.assert_array_equal(read(tmp_path, small), read(tmp_path, PCM[kind], "whole"))


@pytest.mark.parametrize(
    "behind",
    [bytes(1 << 16), b"LIST\4\0\0\0INFO", b"TAG" + bytes(125), b"ID3\4\0\0\0\0\x70\0" + bytes(14336), b"\xa5" * 4000],
)
def test_what_follows_a_sound_and_is_none_is_not_read(tmp_path: Path, behind: bytes) -> None:
    for content in (PCM["WAV"], encoded("FLAC")):
        assert read(tmp_path, content + behind).shape == (2, RATE)


def with_length(flac: bytes, samples: int) -> bytes:
    return flac[:21] + ((flac[21] & 0xF0) << 32 | samples).to_bytes(5) + flac[26:]


@pytest.mark.parametrize("samples", [1, 4095, 8000, RATE - 1])
@pytest.mark.parametrize("compression_level", [0.0, 1.0])
def test_a_flac_that_states_too_few_samples(tmp_path: Path, samples: int, compression_level: float) -> None:
    flac = encoded("FLAC", compression_level=compression_level)
    short = with_length(flac, samples)
    np.testing.assert_array_equal(read(tmp_path, short, "a.flac"), read(tmp_path, flac, "whole.flac"))
    assert read(tmp_path, flac + short, "a.flac").shape == (2, 2 * RATE)


@pytest.mark.parametrize("samples", [1, 192, 4096, 4097, 70_000])
def test_the_last_frame_of_a_flac_says_how_many_samples_there_are(samples: int) -> None:
    content = encoded("FLAC", samples=noise(samples / RATE))
    assert not flac.understates(content)
    assert samples == 1 or flac.understates(with_length(content, samples - 1))
    assert flac.understates(flac.without_length(content))
    for end in range(4, 9):
        assert not flac.understates(content + b"\xff\xf8\xc9\x18\xfe\x80\x80\x80\x80"[:end])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("position", [0, -1, 8000])
def test_an_ogg_whose_last_page_states_an_earlier_position(tmp_path: Path, subtype: str, position: int) -> None:
    content = encoded("OGG", subtype, noise(3.0))
    last = content.rfind(b"OggS")
    page = bytearray(replaced(content, last + 6, "<q", position)[last:])
    short = content[:last] + ogg.with_checksum(page)
    assert read(tmp_path, short).shape[1] == pytest.approx(3 * RATE, abs=200)
    assert not ogg.understates(content)


def test_a_flac_that_does_not_state_its_length(tmp_path: Path) -> None:
    content = with_length(encoded("FLAC"), 0)
    for behind in (b"", b"TAG" + bytes(125)):
        assert read(tmp_path, content + behind, "a.flac").shape == (2, RATE)
    with pytest.raises(FormatError, match="lost sync"):
        read(tmp_path, content[: len(content) // 2], "a.flac")


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), *((kind, "PCM_16") for kind in PCM)],
)
def test_joined_files_are_all_of_them(tmp_path: Path, container: str, subtype: str) -> None:
    content = encoded(container, subtype)
    one = read(tmp_path, content)
    np.testing.assert_array_equal(read(tmp_path, content * 3), np.tile(one, 3))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU"])
def test_what_is_joined_is_described_and_keeps_the_comment_of_the_first(tmp_path: Path, kind: str) -> None:
    one = tmp_path / ("one.wav" if kind == "WAV" else "one")
    if kind == "WAV":
        write_audio(one, noise().T, RATE, Record(stage="generate", settings={"prompt": "slow piano"}))
    else:
        one.write_bytes(PCM[kind])
    (tmp_path / "both").write_bytes(one.read_bytes() * 2)
    described = sound_description(tmp_path / "both")
    assert described["seconds"] == 2 * SECONDS
    assert described.get("record") == sound_description(one).get("record")
    assert ("record" in described) is (kind == "WAV")


def variable_rate_mp3(quiet_first: bool = False) -> bytes:
    samples = noise(12.0, 1)
    samples[slice(0, 8 * RATE) if quiet_first else slice(4 * RATE, None)] *= 0.001
    return encoded("MP3", "MPEG_LAYER_III", samples, bitrate_mode="VARIABLE", compression_level=0.3)


def without_first_frame(content: bytes) -> bytes:
    return content[content.index(b"\xff", 40) :]


ID3 = b"ID3\4\0\0\0\0\x70\0" + b"\xff\xfb\x90\0" * 3584
TAGS = {
    "two ID3 tags": ID3 * 2,
    "ID3 with a size beyond the file": b"ID3\4\0\0\x7f\x7f\x7f\x7f",
    "APE": b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 4, 1, 0xA0000000) + bytes(8) + b"tag " + bytes(32),
}


@pytest.mark.parametrize("quiet_first", [False, True])
def test_an_mp3_without_the_frame_that_counts_frames(tmp_path: Path, quiet_first: bool) -> None:
    whole = variable_rate_mp3(quiet_first)
    bare = read(tmp_path, without_first_frame(whole), "bare.mp3")
    assert bare.shape[1] == pytest.approx(read(tmp_path, whole, "whole.mp3").shape[1], abs=3 * 1152)
    described = sound_description(tmp_path / "bare.mp3")["seconds"]
    assert described == pytest.approx(bare.shape[1] / RATE, abs=0.1)


def test_joined_mp3s_and_tags_of_any_kind(tmp_path: Path) -> None:
    content = variable_rate_mp3()
    one = read(tmp_path, content, "a.mp3")
    ends = b"LYRICSBEGINla la la000012LYRICS200" + b"TAG" + bytes(125)
    np.testing.assert_array_equal(read(tmp_path, content + ends + ID3 + content + ends, "a.mp3"), np.tile(one, 2))
    bare = without_first_frame(content)
    assert read(tmp_path, bare * 2, "a.mp3").shape[1] == pytest.approx(2 * one.shape[1], rel=0.02)
    for name, tag in TAGS.items():
        assert read(tmp_path, tag + content, "a.mp3").shape == one.shape, name


def test_the_decoder_does_not_speak_of_numbers_that_are_not_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = variable_rate_mp3()
    for mp3 in (content[:9000] + content[9500:], without_first_frame(content) * 2, content + content):
        read(tmp_path, mp3, "a.mp3")
    assert capfd.readouterr().err == ""


def test_an_mp3_of_which_much_is_missing_is_refused_and_of_little_is_not(tmp_path: Path) -> None:
    content = variable_rate_mp3()
    for damaged in (content[: len(content) // 2], content[:9000] + b"\x55" * 4000 + content[13000:]):
        with pytest.raises(FormatError, match="cut off or damaged"):
            read(tmp_path, damaged, "a.mp3")
    bare = without_first_frame(content)
    short = read(tmp_path, bare[: len(bare) // 2], "a.mp3")
    assert 0 < short.shape[1] < 12 * RATE, "nothing says that it was longer"


def test_frames_are_those_of_the_encoder() -> None:
    (stream,) = mpeg.streams(encoded("MP3", "MPEG_LAYER_III", noise(5.0)))
    assert stream.is_right
    assert not stream.is_damaged
    assert len(stream.frames) == pytest.approx(5.0 * RATE / 576, abs=4)
    assert mpeg.streams(PCM["WAV"]) == []
    assert mpeg.streams(b"\xff\xfb\x90\x00" * 3) == []


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="joined from sounds"):
        read(tmp_path, encoded("OGG", "VORBIS") + encoded("OGG", "VORBIS", noise(channels=1)))


@pytest.mark.parametrize(
    ("at", "number", "value", "said"),
    [
        (24, "<I", 1, "states 1 Hz"),
        (24, "<I", 2**30, "states 1073741824 Hz"),
        (22, "<H", 1000, "1000 channels"),
        (22, "<H", 0, "not a"),
    ],
)
def test_absurd_headers_are_refused(tmp_path: Path, at: int, number: str, value: int, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read(tmp_path, replaced(PCM["WAV"], at, number, value))


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.flac"])
def test_what_stands_in_for_a_sound_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for content, said in ((pointer, "a Git LFS pointer"), (b"\n<!DOCTYPE html><html>404", "a web page")):
        with pytest.raises(FormatError, match=said):
            read(tmp_path, content, name)
    (tmp_path / "link.mp3").symlink_to(tmp_path / "nowhere.mp3")
    with pytest.raises(InputError, match="a link to a file that does not exist"):
        read_audio(tmp_path / "link.mp3")
    with pytest.raises(InputError, match="a device or a pipe"):
        read_audio(Path(os.devnull))


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems only")
def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write_audio(path, noise().T, RATE)
    assert read_audio(path)[0].shape == (2, RATE)


@pytest.mark.parametrize("name", ["a.flac", "cut.flac", os.fsdecode(b"caf\xe9.flac")])
def test_a_recording_read_in_blocks_is_what_is_read_at_once(tmp_path: Path, name: str) -> None:
    content = with_length(encoded("FLAC"), 0)
    (tmp_path / name).write_bytes(content[: len(content) // 2] if name == "cut.flac" else content)
    if name == "cut.flac":
        with pytest.raises(FormatError, match="decoder lost sync"):
            list(Recording.open(tmp_path / name).blocks())
        return
    recording = Recording.open(tmp_path / name)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks()), axis=1), read_audio(tmp_path / name)[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zeros.mp3", bytes(5000)),
        ("one.mp3", b"\xff\xfb\x90\0" + bytes(900)),
        ("tag.mp3", b"ID3\4\0\0\0\0\0\0" + bytes(500)),
        ("noise.au", bytes(range(256)) * 40),
    ],
)
def test_a_name_does_not_make_a_sound(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    with pytest.raises(FormatError, match=r"no header that says what it is|not recognised"):
        read(tmp_path, content, name)
    assert capfd.readouterr().err == "", "the decoder speaks to nobody"

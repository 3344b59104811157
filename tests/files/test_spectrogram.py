"""Spectrogram PNGs: pixels, spec and record return, and every picture that lost something is refused."""

import io
import json
import tracemalloc
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdxl_mel.arrays import Levels
from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.spectrogram import (
    Spectrogram,
    decode_png,
    encode_png,
    read_spectrogram,
    write_png,
    write_spectrogram,
)
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import PRESETS, named_spec

MINI = PRESETS["mini"]
RECORD = Record(stage="encode", settings={"name": "Größe 音楽"})


def levels(width: int = 40, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (MINI.n_mels, width, channels), dtype=np.uint8)


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@settings(deadline=None, max_examples=20)
@given(
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 999),
    name=st.sampled_from(["mini", "x"]),
)
def test_what_is_written_returns(width: int, channels: int, seed: int, name: str) -> None:
    spec = MINI if name == "mini" else MINI.model_copy(update={"low_at": "top"})
    picture = Spectrogram(levels(width, channels, seed), spec, RECORD)
    again = decode_png(encode_png(picture), "x.png")
    np.testing.assert_array_equal(again.levels, picture.levels)
    assert (again.spec, again.record) == (spec, RECORD)
    assert encode_png(picture) == encode_png(again)


def test_low_frequencies_are_at_the_bottom() -> None:
    content = np.zeros((MINI.n_mels, 8, 1), dtype=np.uint8)
    content[0] = 255
    image = np.asarray(Image.open(io.BytesIO(encode_png(Spectrogram(content, MINI)))))
    assert image[-1].min() == 255
    assert image[:-1].max() == 0


def test_a_long_picture(tmp_path: Path) -> None:
    wide = np.tile(levels(100), (1, 1000, 1))
    write_spectrogram(tmp_path / "wide.png", Spectrogram(wide, MINI))
    np.testing.assert_array_equal(read_spectrogram(tmp_path / "wide.png").levels, wide)


def test_pillows_global_limit_of_pixels_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture = Spectrogram(levels(), MINI)
    np.testing.assert_array_equal(decode_png(encode_png(picture), "x.png").levels, picture.levels)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_that_says_nothing_must_be_stated() -> None:
    plain = png(Image.fromarray(levels()[..., 0]))
    with pytest.raises(InputError, match="state it with --format NAME"):
        decode_png(plain, "x.png")
    assert decode_png(plain, "x.png", MINI).spec == MINI
    with pytest.raises(MismatchError, match="sample_rate"):
        decode_png(encode_png(Spectrogram(levels(), MINI)), "x.png", named_spec("std"))


def test_other_modes_that_keep_every_level() -> None:
    grey = levels()[::-1, :, 0]
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    palette = Image.fromarray(grey).convert("P")
    rgba = Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1))
    for image in (sixteen, palette, rgba):
        found = decode_png(png(image), "x.png", MINI).levels
        np.testing.assert_array_equal(found.max(axis=-1), levels()[..., 0])
        np.testing.assert_array_equal(found.min(axis=-1), levels()[..., 0])


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG that says it is huge."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def interlaced(pixels: np.ndarray, info: bytes = b"") -> bytes:
    """Return a PNG whose rows come in the seven passes of Adam7 (PNG 1.2, section 2.6), without filters."""
    height, width, channels = pixels.shape
    rows = [b"\0" + row.tobytes() for y, x, down, right in ADAM7 for row in pixels[y::down, x::right] if row.size]
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0 if channels == 1 else 2, 0, 0, 1])
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + info + data + chunk(b"IEND", b"")


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of each pass: its first row and column, and the steps to the next."""


@pytest.mark.parametrize("width", [1, 8, 41])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_interlaced_picture_is_the_same(width: int, channels: int) -> None:
    text = chunk(b"iTXt", b"melspec\0\0\0\0\0" + MINI.to_json().encode())
    content = interlaced(levels(width, channels)[::-1], text)
    found = decode_png(content, "x.png")
    assert found.spec == MINI
    np.testing.assert_array_equal(found.levels, levels(width, channels))
    with pytest.raises(FormatError, match="not a readable PNG"):
        decode_png(content[:-200], "x.png")


def text_bomb() -> bytes:
    whole = encode_png(Spectrogram(levels(), MINI))
    text = chunk(b"zTXt", b"record\0\0" + zlib.compress(bytes(100_000_000)))
    return whole[:33] + text + whole[33:]


GOOD = encode_png(Spectrogram(levels(), MINI, RECORD))
ALPHA = Image.fromarray(np.dstack([np.repeat(levels(), 3, axis=-1), levels()]))
BAD = {
    "empty": (b"", "not a readable PNG"),
    "text": (b"hello " * 99, "not a readable PNG"),
    "cut off": (GOOD[: len(GOOD) // 2], "not a readable PNG"),
    "damaged": (GOOD[:2000] + b"\0" * 500 + GOOD[2500:], "not a readable PNG"),
    "JPEG": (png(Image.fromarray(levels()[..., 0]), "JPEG"), "a JPEG picture; only PNG"),
    "black and white": (png(Image.fromarray(levels()[..., 0] > 99)), "only black and white"),
    "see-through": (png(ALPHA), "partly transparent"),
    "another height": (png(Image.fromarray(levels()[:100, :, 0])), "100 pixels high, its spec says 128"),
    "bomb": (bomb(100_000, 100_000), "than any spectrogram has"),
    "big bomb": (bomb(1 << 30, 1 << 30), "than any spectrogram has"),
    "cut bomb": (bomb(10_000, 128), "not a readable PNG"),
    "text bomb": (text_bomb(), "not a readable PNG"),
    "newer": (GOOD.replace(b'"version":1', b'"version":9'), "not a readable PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_named(name: str) -> None:
    content, said = BAD[name]
    with pytest.raises(FormatError, match=said) as caught:
        decode_png(content, "x.png", MINI)
    assert str(caught.value).startswith("x.png: ")
    assert "\n" not in str(caught.value)


def test_a_newer_spec_and_a_damaged_record() -> None:
    for key, text, said in (
        ("melspec", MINI.to_json().replace('"version":1', '"version":9'), "update sdxl-mel"),
        ("record", '{"stage": 3}', "its record is damaged"),
    ):
        info = PngInfo()
        info.add_itxt("melspec", MINI.to_json()) if key == "record" else None
        info.add_itxt(key, text)
        buffer = io.BytesIO()
        Image.fromarray(levels()[..., 0]).save(buffer, "PNG", pnginfo=info)
        with pytest.raises(FormatError, match=said):
            decode_png(buffer.getvalue(), "x.png")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a picture"):
        read_spectrogram(tmp_path / "missing.png")
    with pytest.raises(InputError, match="expected a picture"):
        read_spectrogram(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(FormatError, match="an empty file"):
        read_spectrogram(tmp_path / "empty.png")


def png_of(pixels: Levels, info: PngInfo | None = None) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        write_png(path, pixels, info)
        return path.read_bytes()


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 70), grey=st.booleans(), seed=st.integers(0, 99))
def test_pillow_reads_the_same_pixels(height: int, width: int, grey: bool, seed: int) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    image = Image.open(io.BytesIO(png_of(pixels)))
    assert image.mode == ("L" if grey else "RGB")
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pillow_reads_the_text() -> None:
    info = PngInfo()
    info.add_itxt("melspec", '{"prompt": "Größe, 音楽"}')
    image = Image.open(io.BytesIO(png_of(np.zeros((8, 8), dtype=np.uint8), info)))
    assert image.text == {"melspec": '{"prompt": "Größe, 音楽"}'}


@pytest.mark.parametrize("shape", [(40, 20000), (128, 5000, 3), (2, 100000, 3)])
def test_packed_in_bands_a_picture_has_the_bytes_of_one_that_is_packed_at_once(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
    content = png_of(pixels)
    rows = pixels.reshape(shape[0], -1)
    filtered = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    data = packer.compress(np.insert(filtered, 0, 2, axis=1).tobytes()) + packer.flush()
    assert content[33:] == b"".join(
        len(part).to_bytes(4) + name + part + zlib.crc32(name + part).to_bytes(4)
        for name, part in ((b"IDAT", data), (b"IEND", b""))
    )


def test_writing_a_long_picture_takes_no_copy_of_it(tmp_path: Path) -> None:
    picture = Spectrogram(levels(100_000), MINI)
    tracemalloc.start()
    write_spectrogram(tmp_path / "long.png", picture)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < picture.levels.nbytes / 6


def test_every_checksum_is_right() -> None:
    content = png_of(np.zeros((8, 8, 3), dtype=np.uint8))
    Image.open(io.BytesIO(content)).verify()
    broken = bytearray(content)
    broken[-6] ^= 1
    with pytest.raises((SyntaxError, OSError)):
        Image.open(io.BytesIO(bytes(broken))).verify()


def with_chunk(content: bytes, name: bytes, data: bytes) -> bytes:
    """Return a PNG with another chunk after its header."""
    chunk = len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)
    return content[:33] + chunk + content[33:]


def test_text_of_other_programs_of_any_size_is_no_matter() -> None:
    picture = Spectrogram(levels(), MINI, RECORD)
    text = zlib.compress(b"workflow " * 1_000_000)
    for name, data in ((b"zTXt", b"workflow\0\0" + text), (b"tEXt", b"x\0" + bytes(range(1, 200)) * 40_000)):
        found = decode_png(with_chunk(encode_png(picture), name, data), "x.png")
        np.testing.assert_array_equal(found.levels, picture.levels)
        assert found.record == RECORD


@pytest.mark.parametrize("at", [16, 20])
def test_a_size_that_the_file_cannot_hold_is_not_taken_as_memory(at: int) -> None:
    content = bytearray(encode_png(Spectrogram(levels(), MINI)))
    content[at : at + 4] = (1_500_000).to_bytes(4)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    with pytest.raises(FormatError, match=r"it holds less than \d+ x \d+ pixels"):
        decode_png(bytes(content), "x.png")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_damage_of_bytes_is_a_picture_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(encode_png(Spectrogram(levels(24), MINI, RECORD)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_png(bytes(content[: data.draw(st.integers(0, len(content)))]), "x.png")
    except InputError as error:
        assert "object at 0x" not in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("field", [{"n_mels": 8 * 10**9}, {"width": 8 * 10**9}, {"n_fft": 10**12}, {"fmax": 1e300}])
def test_a_spec_beyond_all_reason_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(FormatError, match="not a valid spec"):
        type(MINI).from_json(json.dumps(MINI.model_dump() | field))

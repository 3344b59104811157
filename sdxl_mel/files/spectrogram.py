"""Spectrogram PNGs: pixels, the spec that made them and the record of what made the file, in one lossless picture."""

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo, putchunk
from pydantic import JsonValue, ValidationError

from sdxl_mel.arrays import Levels
from sdxl_mel.config import Skipped
from sdxl_mel.errors import FormatError, InputError, MismatchError
from sdxl_mel.files.atomic import atomic_path
from sdxl_mel.files.opening import first_bytes
from sdxl_mel.record import Record
from sdxl_mel.sound.melspec import FORMATS, MelSpec, require_equal

SPEC_KEY, RECORD_KEY = "melspec", "record"
"""The names of the text chunks."""
MAX_PIXELS = 1 << 28
"""More than any spectrogram picture has: 512 rows of two hours are 2.3e8 pixels."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_DEFLATED = 1032
"""Bytes that one byte of a deflate stream stands for at most."""
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
PNG_FAILURES = (OSError, SyntaxError, ValueError, LookupError, OverflowError, TypeError, struct.error, zlib.error)
"""What Pillow raises for damaged pictures."""
FILTER_UP = 2
GREY, RGB = 0, 2
MEMORY_LEVEL = 9
BAND_BYTES = 1 << 18
"""Bytes filtered and packed at a time: a picture of an hour needs no copy of itself."""


@dataclass(frozen=True)
class Spectrogram:
    """A spectrogram picture: `levels` (n_mels, frames, 1 or 3) with row 0 = lowest band, and what it means."""

    levels: Levels
    spec: MelSpec
    record: Record | None = None


def write_spectrogram(path: Path, picture: Spectrogram) -> None:
    """Write a picture as PNG, whole or not at all; `read_spectrogram` is the inverse.

    One channel is written as 8-bit grey, three as RGB. The same picture makes the same bytes.
    """
    write_png(path, *_pixels_and_text(picture))


def encode_png(picture: Spectrogram) -> bytes:
    """Return the bytes of the PNG that `write_spectrogram` writes."""
    file = BytesIO()
    _put_png(file, *_pixels_and_text(picture))
    return file.getvalue()


def write_png(path: Path, pixels: Levels, info: PngInfo | None = None) -> None:
    """Write pixels (height, width) or (height, width, 3) as PNG with the text of `info`, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _put_png(file, pixels, info or PngInfo())


def _pixels_and_text(picture: Spectrogram) -> tuple[Levels, PngInfo]:
    info = PngInfo()
    info.add_itxt(SPEC_KEY, picture.spec.to_json())
    if picture.record is not None:
        info.add_itxt(RECORD_KEY, picture.record.model_dump_json())
    rows = picture.levels[::-1] if picture.spec.low_at == "bottom" else picture.levels
    return rows[..., 0] if rows.shape[-1] == 1 else rows, info


def _put_png(file: BinaryIO, pixels: Levels, info: PngInfo) -> None:
    """Write a PNG (PNG 1.2, chapter 4) to a file that can seek."""
    height, width = pixels.shape[:2]
    file.write(SIGNATURE)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, GREY if pixels.ndim == 2 else RGB, 0, 0, 0))
    for name, content, *_ in info.chunks:
        putchunk(file, name, content)
    _put_long_chunk(file, b"IDAT", _packed(pixels))
    putchunk(file, b"IEND", b"")


def _put_long_chunk(file: BinaryIO, name: bytes, blocks: Iterable[bytes]) -> None:
    """Write a chunk block by block; its length is known, and put before it, at its end."""
    start, length, checksum = file.tell(), 0, zlib.crc32(name)
    file.write(bytes(4) + name)
    for block in blocks:
        file.write(block)
        length, checksum = length + len(block), zlib.crc32(block, checksum)
    file.write(struct.pack(">I", checksum))
    end = file.tell()
    file.seek(start)
    file.write(struct.pack(">I", length))
    file.seek(end)


def _packed(pixels: Levels) -> Iterator[bytes]:
    """Yield the zlib stream of all filtered rows, a band of rows at a time."""
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, MEMORY_LEVEL, zlib.Z_RLE)
    at_once = max(1, BAND_BYTES // pixels[0].size)
    for start in range(0, len(pixels), at_once):
        rows = pixels[start : start + at_once].reshape(-1, pixels[0].size)
        above = pixels[start - 1].reshape(1, -1) if start else np.zeros_like(rows[:1])
        filtered = np.full((len(rows), 1 + rows.shape[1]), FILTER_UP, dtype=np.uint8)
        np.subtract(rows, np.concatenate([above, rows[:-1]]), out=filtered[:, 1:])
        yield packer.compress(filtered.data)
    yield packer.flush()


def read_spectrogram(path: Path, stated: MelSpec | None = None) -> Spectrogram:
    """Read a picture; `stated` is the spec of a picture that carries none.

    Raises InputError for a missing file or spec, FormatError for what is corrupt, lossy or of the wrong size.
    """
    return decode_png(read_bytes(path), str(path), stated)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a picture file. Raises InputError when it cannot be read, FormatError when it is empty."""
    first_bytes(path, "a picture")
    return path.read_bytes()


def read_tile(path: Path, spec: MelSpec) -> Levels:
    """Read the levels of one tile of a dataset, (n_mels, width, 1 or 3).

    Raises MismatchError for a picture of another spec and FormatError for one of another width.
    """
    picture = read_spectrogram(path)
    require_equal(picture.spec, spec, str(path), "its dataset")
    if picture.levels.shape[1] != spec.width:
        raise FormatError(f"{path}: {picture.levels.shape[1]} frames wide, a tile has {spec.width}; prepare it again")
    return picture.levels


def decode_png(content: bytes, where: str, stated: MelSpec | None = None) -> Spectrogram:
    """Return the picture in a PNG's bytes; see `read_spectrogram`."""
    image = _open(content, where)
    carried = _spec_of(image, where)
    spec = carried or stated
    if spec is None:
        raise InputError(
            f"{where}: the picture does not say how it was made; state it with --format NAME ({', '.join(FORMATS)})"
        )
    if carried and stated:
        require_equal(carried, stated, where, "the stated --format")
    if image.height != spec.n_mels:
        raise FormatError(
            f"{where}: {image.height} pixels high, its spec says {spec.n_mels}; it was resized or cropped"
        )
    pixels = _pixels(image, where)
    levels = pixels[::-1] if spec.low_at == "bottom" else pixels
    return Spectrogram(np.ascontiguousarray(levels), spec, _record_of(image, where))


def _open(content: bytes, where: str) -> PngImageFile:
    if not content.startswith(SIGNATURE):
        raise FormatError(f"{where}: {_kind_of(content)}; only PNG keeps every level, so give the original PNG")
    try:
        # Not by Image.open, whose limit of pixels is a global setting, and lower than this one.
        image = PngImageFile(BytesIO(_without_other_text(content)))
        if image.width * image.height > MAX_PIXELS:
            raise FormatError(f"{where}: {image.width} x {image.height} pixels is more than any spectrogram has")
        # By a damaged header, whose size would be taken as memory. Byte 24 says how many bits a pixel has at least.
        if image.width * image.height * content[24] > len(content) * MOST_DEFLATED * 8:
            raise FormatError(f"{where}: not a readable PNG (it holds less than {image.width} x {image.height} pixels)")
        image.load()
    except PNG_FAILURES as error:
        raise FormatError(f"{where}: not a readable PNG ({_reason(error)})") from error
    return image


def _without_other_text(content: bytes) -> bytes:
    """Return a PNG without the text of other programs: Pillow refuses pictures for text of more than a megabyte."""
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at < len(content):
        size = int.from_bytes(content[at : at + 4])
        name, key = content[at + 4 : at + 8], content[at + 8 : at + 8 + 80].partition(b"\0")[0]
        if name not in TEXT_CHUNKS or key in (SPEC_KEY.encode(), RECORD_KEY.encode()):
            kept.append(content[at : at + 12 + size])
        at += 12 + size
    return b"".join(kept)


def _reason(error: Exception) -> str:
    """Return what a decoder says of a file, without the object it read it from."""
    return "damaged" if "object at 0x" in str(error) or not str(error) else str(error)


def _kind_of(content: bytes) -> str:
    try:
        return f"a {Image.open(BytesIO(content)).format} picture"
    except (*PNG_FAILURES, Image.DecompressionBombError):
        return "not a readable PNG"


def _spec_of(image: PngImageFile, where: str) -> MelSpec | None:
    text = image.text.get(SPEC_KEY)
    return None if text is None else MelSpec.from_json(text, where)


def _record_of(image: PngImageFile, where: str) -> Record | None:
    text = image.text.get(RECORD_KEY)
    if text is None:
        return None
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        raise FormatError(f"{where}: its record is damaged ({error.errors()[0]['msg']})") from error


def _pixels(image: Image.Image, where: str) -> Levels:
    match image.mode:
        case "L":
            return np.asarray(image)[..., None]
        case "RGB":
            return np.asarray(image)
        case "1":
            raise FormatError(f"{where}: only black and white are left; give the 8-bit original")
        case "RGBA" | "LA" | "PA" | "P":
            # The levels behind what is transparent are unknown.
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise FormatError(f"{where}: partly transparent, which no spectrogram is; give the original PNG")
            return np.asarray(image.convert("RGB"))
        case mode if mode.startswith("I"):
            return np.rint(np.asarray(image, dtype=np.float64)[..., None] / 257.0).astype(np.uint8)
        case mode:
            raise FormatError(f"{where}: pixels of kind {mode}; expected 8-bit grey or RGB")


def picture_description(path: Path) -> dict[str, JsonValue]:
    """Return what a PNG is, for people: its size, and its spec and record where it has them."""
    image = _open(read_bytes(path), str(path))
    spec = _spec_of(image, str(path))
    record = _record_of(image, str(path))
    described: dict[str, JsonValue] = {"kind": f"spectrogram picture, {image.mode}" if spec else f"PNG, {image.mode}"}
    described |= {"width": image.width, "height": image.height}
    if spec is None:
        return described | {SPEC_KEY: "none: to invert it, state what it is with --format NAME"}
    seconds = image.width * spec.hop_length / spec.sample_rate
    described |= {"seconds": seconds, SPEC_KEY: spec.model_dump(mode="json")}
    return described | ({RECORD_KEY: record.model_dump(mode="json")} if record else {})


def read_tiles(
    paths: Sequence[Path], folders: Collection[Path] = (), stated: MelSpec | None = None
) -> tuple[dict[Path, Spectrogram], tuple[Skipped, ...]]:
    """Read pictures that are to be joined; those in `folders` that cannot be read are left out, with the reason.

    Raises InputError for another that cannot be read, MismatchError that lists how one differs from the first.
    """
    tiles: dict[Path, Spectrogram] = {}
    skipped: list[Skipped] = []
    for path in paths:
        try:
            tiles[path] = read_spectrogram(path, stated)
        except InputError as error:
            if path.parent not in folders:
                raise
            skipped.append(Skipped(what=str(path), why=str(error)))
    first, *others = tiles or [Path()]
    for path in others:
        require_equal(tiles[first].spec, tiles[path].spec, str(first), str(path))
        here, there = tiles[first].levels.shape[2], tiles[path].levels.shape[2]
        if here != there:
            raise MismatchError(
                f"{first} and {path} have different channel layouts: {here} channels against {there}; "
                "make both from mono or both from stereo sound"
            )
    return tiles, tuple(skipped)

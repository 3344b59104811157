"""What libsndfile lacks for WAV (RIFF) and Ogg: whether a file is whole, long comments, the same bytes every time."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK_HEADER = struct.Struct("<4sI")
PEAK_TIME_OFFSET = 4
MIDDLE_C = 60
STREAMED = 0xFFFFFFFF
"""The size that a program writes when it does not know it yet."""
MAX_PAGE_BYTES = 1 << 16
FLAGS_OFFSET, SERIAL_OFFSET, CHECKSUM_OFFSET, COUNT_OFFSET = 5, 14, 22, 26
"""Of the fields of an Ogg page (RFC 3533)."""
LAST_PAGE = 4
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in reverse order."""


class Chunk(NamedTuple):
    """One chunk of a RIFF file: its name, the offset of its content in bytes, and the size that its header states."""

    name: bytes
    start: int
    size: int


def wav_missing_bytes(path: Path) -> int:
    """Return by how many bytes a WAV file is shorter than its sound says; 0 for a whole one and for other files."""
    length = path.stat().st_size
    with path.open("rb") as file:
        sound = next((chunk for chunk in _chunks(file) if chunk.name == b"data"), None)
    return 0 if sound is None or sound.size == STREAMED else max(0, sound.start + sound.size - length)


def add_wav_comment(path: Path, text: str) -> None:
    """Append `text` to a WAV file as the comment (ICMT) of an INFO list."""
    content = text.encode() + b"\0"
    content += b"\0" * (len(content) % 2)
    _append_chunk(path, b"LIST", b"INFO" + CHUNK_HEADER.pack(b"ICMT", len(content)) + content)


def add_wav_loop(path: Path, rate: int, samples: int) -> None:
    """Append the loop points of the whole sound to a WAV file: its sampler chunk (`smpl`, RIFF MCI, 1994).

    One loop, forward, without end, of the middle C that plays it as it is.
    """
    sampler = (0, 0, round(1e9 / rate), MIDDLE_C, 0, 0, 0, 1, 0)
    loop = (0, 0, 0, samples - 1, 0, 0)
    _append_chunk(path, b"smpl", struct.pack("<15I", *sampler, *loop))


def read_wav_loop(path: Path) -> tuple[int, int] | None:
    """Return the first and the last sample of a WAV file's loop, None where it states none."""
    with path.open("rb") as file:
        for chunk in list(_chunks(file)):
            if chunk.name == b"smpl" and chunk.size >= struct.calcsize("<15I"):
                file.seek(chunk.start)
                first, last = struct.unpack("<15I", file.read(struct.calcsize("<15I")))[11:13]
                return first, last
    return None


def read_wav_comment(path: Path) -> str | None:
    """Return the comment that `add_wav_comment` wrote, None where there is none."""
    with path.open("rb") as file:
        for chunk in list(_chunks(file)):
            file.seek(chunk.start)
            content = file.read(chunk.size) if chunk.name == b"LIST" else b""
            if content[:8] == b"INFOICMT":
                size = CHUNK_HEADER.unpack_from(content, 4)[1]
                return content[12 : 12 + size].rstrip(b"\0").decode("utf-8", errors="replace")
    return None


def _append_chunk(path: Path, name: bytes, content: bytes) -> None:
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.write(b"\0" * (end % 2) + CHUNK_HEADER.pack(name, len(content)) + content)
        total = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", total - 8))


def clear_wav_peak_time(path: Path) -> None:
    """Set the time of writing in the PEAK chunk of a float WAV to zero, so that the same sound makes the same bytes."""
    with path.open("r+b") as file:
        for chunk in list(_chunks(file)):
            if chunk.name == b"PEAK":
                file.seek(chunk.start + PEAK_TIME_OFFSET)
                file.write(b"\0\0\0\0")


def _chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF file; none of another file."""
    if file.read(4) != b"RIFF":
        return
    file.seek(12)
    while len(header := file.read(CHUNK_HEADER.size)) == CHUNK_HEADER.size:
        name, size = CHUNK_HEADER.unpack(header)
        start = file.tell()
        yield Chunk(name, start, size)
        file.seek(start + size + size % 2)


def ogg_is_whole(path: Path) -> bool:
    """Return whether the last page of an Ogg file is marked as the last of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_PAGE_BYTES))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and bool(tail[page + FLAGS_OFFSET] & LAST_PAGE)


def clear_ogg_serial(path: Path) -> None:
    """Set the random serial number of a file's only stream to zero, so that the same sound makes the same bytes."""
    with path.open("r+b") as file:
        while header := file.read(COUNT_OFFSET + 1):
            lengths = file.read(header[COUNT_OFFSET])
            page = bytearray(header + lengths + file.read(sum(lengths)))
            page[SERIAL_OFFSET : SERIAL_OFFSET + 4] = page[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = bytes(4)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, _ogg_checksum(page))
            file.seek(-len(page), 1)
            file.write(page)


def _ogg_checksum(page: bytes | bytearray) -> int:
    """Return the CRC of a page whose own checksum is zero.

    It is zlib's polynomial, but with the highest bit first and without the inversions before and after.
    """
    inverted = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF)
    return int(f"{inverted ^ 0xFFFFFFFF:032b}"[::-1], 2)

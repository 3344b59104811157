"""What libsndfile lacks for files of chunks (WAV and its relatives) and Ogg.

Whether a file is whole, sizes that a recorder did not know yet, files joined to one, long comments, and the same bytes
every time.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

Content = bytes | mmap.mmap
CHUNK_HEADER = struct.Struct("<4sI")
SAMPLER = struct.Struct("<15I")
PEAK_TIME_OFFSET = 4
MIDDLE_C = 60
PAGE_HEADER = 27
FLAGS_OFFSET, SERIAL_OFFSET, CHECKSUM_OFFSET, COUNT_OFFSET = 5, 14, 22, 26
"""Of the fields of an Ogg page (RFC 3533)."""
FIRST_PAGE, LAST_PAGE = 2, 4
FLAC_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The marker, and the header of the block of 34 bytes that is always the first."""
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in reverse order."""


class Form(NamedTuple):
    """A kind of file made of chunks: their header, where the first begins, and to what their sizes are rounded up.

    `own` bytes of a stated size are the header itself.
    """

    header: struct.Struct
    first: int
    rounded: int = 2
    own: int = 0


FORMS = {
    b"RIFF": Form(CHUNK_HEADER, 12),
    b"RF64": Form(CHUNK_HEADER, 12),
    b"RIFX": Form(struct.Struct(">4sI"), 12),
    b"FORM": Form(struct.Struct(">4sI"), 12),
    b"caff": Form(struct.Struct(">4sQ"), 8, rounded=1),
    b"riff": Form(struct.Struct("<16sQ"), 40, rounded=8, own=24),
}
"""By the first bytes of a file: WAV, RF64, big-endian WAV, AIFF, CAF, W64."""
SOUND_CHUNKS = (b"data", b"SSND", b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a"))


class Chunk(NamedTuple):
    """One chunk: its name, the offset of its content in bytes, its size as stated, and where that stands and how."""

    name: bytes
    start: int
    size: int
    size_at: int
    number: str


def sound_chunk(content: Content) -> Chunk | None:
    """Return the chunk of a file that holds the sound; None of a file that is not made of chunks.

    Of RF64 its size is the one that stands in the chunk `ds64`; the sound of an AU file is taken for a chunk.
    """
    if content[:4] == b".snd" and len(content) >= 24:
        start, size = struct.unpack_from(">II", content, 4)
        return Chunk(b".snd", start, size, 8, ">I")
    large: Chunk | None = None
    for chunk in _chunks(content):
        if chunk.name == b"ds64" and len(content) >= chunk.start + 16:
            at = chunk.start + 8
            large = Chunk(b"data", 0, struct.unpack_from("<Q", content, at)[0], at, "<Q")
        if chunk.name in SOUND_CHUNKS:
            return chunk if large is None or chunk.size != 0xFFFFFFFF else large._replace(start=chunk.start)
    return None


def missing_bytes(content: Content, sound: Chunk) -> int:
    """Return by how many bytes a file is shorter than its sound says; 0 for a whole one."""
    return max(0, sound.start + sound.size - len(content))


def is_of_unknown_size(content: Content, sound: Chunk) -> bool:
    """Say whether the size of the sound was stated before it was known: one that no file has, or 0 before sound."""
    if sound.size <= 0:
        *_, last = [sound, *_chunks(content)]
        return sound.start < len(content) and not -1 <= last.start + last.size - len(content) <= 1
    large = 1 << 60 if struct.calcsize(sound.number) == 8 else 0x7E000000
    return sound.size >= large and missing_bytes(content, sound) > 0


def with_size(content: Content, sound: Chunk) -> bytes:
    """Return the file with the size of its sound stated as the rest of the file."""
    own = FORMS[content[:4]].own if content[:4] in FORMS else 0
    largest = 256 ** struct.calcsize(sound.number) - 1
    size = struct.pack(sound.number, min(len(content) - sound.start + own, largest))
    return b"".join([content[: sound.size_at], size, content[sound.size_at + len(size) :]])


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
    _append_chunk(path, b"smpl", SAMPLER.pack(*sampler, *loop))


def read_wav_loop(path: Path) -> tuple[int, int] | None:
    """Return the first and the last sample of a WAV file's loop, None where it states none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for chunk in _chunks(content):
            if chunk.name == b"smpl" and min(chunk.size, len(content) - chunk.start) >= SAMPLER.size:
                first, last = SAMPLER.unpack_from(content, chunk.start)[11:13]
                return first, last
    return None


def read_wav_comment(content: Content) -> str | None:
    """Return the comment that `add_wav_comment` wrote, None where there is none."""
    for chunk in _chunks(content):
        if chunk.name == b"LIST" and content[chunk.start : chunk.start + 8] == b"INFOICMT":
            start, (_, size) = chunk.start + 12, CHUNK_HEADER.unpack_from(content, chunk.start + 4)
            return content[start : start + size].rstrip(b"\0").decode("utf-8", errors="replace")
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
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for chunk in _chunks(content):
            if chunk.name == b"PEAK":
                first = chunk.start + PEAK_TIME_OFFSET
                content[first : first + 4] = bytes(4)


def _chunks(content: Content) -> Iterator[Chunk]:
    """Yield the chunks of a file made of chunks; none of another file, and none after one without a name."""
    form = FORMS.get(content[:4])
    at = form.first if form else len(content)
    while form and at + form.header.size <= len(content):
        name, size = form.header.unpack_from(content, at)
        if not name.strip(b"\0"):
            return
        start, number = at + form.header.size, form.header.format[0] + form.header.format[-1]
        yield Chunk(name, start, size - form.own, start - struct.calcsize(number), number)
        at = start + max(0, -(-(size - form.own) // form.rounded) * form.rounded)


def ogg_links(content: Content) -> list[bytes]:
    """Return the parts of an Ogg file that was joined from several: each begins with first pages (RFC 3533)."""
    starts: list[int] = []
    before, at = 0, 0
    while content[at : at + 4] == b"OggS" and at + PAGE_HEADER <= len(content):
        first = content[at + FLAGS_OFFSET] & FIRST_PAGE
        starts += [at] if first and not before else []
        lengths = content[at + PAGE_HEADER : at + PAGE_HEADER + content[at + COUNT_OFFSET]]
        before, at = first, at + PAGE_HEADER + len(lengths) + sum(lengths)
    return _parts(content, starts)


def flac_links(content: Content) -> list[bytes]:
    """Return the parts of a FLAC file that was joined from several (RFC 9639, sections 6 and 8.1)."""
    return _parts(content, [found.start() for found in FLAC_START.finditer(content)])


def _parts(content: Content, starts: list[int]) -> list[bytes]:
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)])]


def ogg_is_whole(content: Content) -> bool:
    """Return whether the last page of an Ogg file is marked as the last of its stream."""
    page = content.rfind(b"OggS")
    return len(content) > page + FLAGS_OFFSET and page >= 0 and bool(content[page + FLAGS_OFFSET] & LAST_PAGE)


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

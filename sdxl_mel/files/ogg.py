"""What libsndfile lacks for Ogg (RFC 3533): whether a file is whole, files joined to one, the same bytes every time."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sdxl_mel.files.containers import Content, split_at

PAGE_HEADER = 27
FLAGS_OFFSET, POSITION_OFFSET, SERIAL_OFFSET, CHECKSUM_OFFSET, COUNT_OFFSET = 5, 6, 14, 22, 26
"""Of the fields of a page."""
FIRST_PAGE, LAST_PAGE = 2, 4
NO_END = (1 << 62) - 1
"""A position that no sound reaches."""
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in reverse order."""


class Page(NamedTuple):
    """A page: its first byte and the byte after its last, its flags, its stream, and the position where it ends.

    The position counts samples; it is -1 where no packet ends.
    """

    start: int
    end: int
    flags: int
    stream: int
    position: int


def links(content: Content) -> list[Content]:
    """Return the parts of an Ogg file that was joined from several: each begins with first pages."""
    starts: list[int] = []
    first_before = 0
    for page in _pages(content):
        first = page.flags & FIRST_PAGE
        starts += [page.start] if first and not first_before else []
        first_before = first
    return split_at(content, starts)


def is_whole(content: Content) -> bool:
    """Return whether the last page of an Ogg file is marked as the last of its stream."""
    page = content.rfind(b"OggS")
    return len(content) > page + FLAGS_OFFSET and page >= 0 and bool(content[page + FLAGS_OFFSET] & LAST_PAGE)


def understates(content: Content) -> bool:
    """Say whether the last page, by which decoders know the length, states a position before one already reached."""
    pages = list(_pages(content))
    return bool(pages) and pages[-1].position < max(page.position for page in pages if page.stream == pages[-1].stream)


def without_length(content: Content) -> bytes:
    """Return the file with a last page that states no end, so that all of it is decoded."""
    *_, last = _pages(content)
    page = bytearray(content[last.start : last.end])
    struct.pack_into("<q", page, POSITION_OFFSET, NO_END)
    return content[: last.start] + with_checksum(page) + content[last.end :]


def clear_serial(path: Path) -> None:
    """Set the random serial number of a file's only stream to zero, so that the same sound makes the same bytes."""
    with path.open("r+b") as file:
        while header := file.read(COUNT_OFFSET + 1):
            lengths = file.read(header[COUNT_OFFSET])
            page = bytearray(header + lengths + file.read(sum(lengths)))
            page[SERIAL_OFFSET : SERIAL_OFFSET + 4] = bytes(4)
            file.seek(-len(page), 1)
            file.write(with_checksum(page))


def with_checksum(page: bytearray) -> bytes:
    """Return a page with its checksum.

    It is zlib's polynomial, but with the highest bit first and without the inversions before and after.
    """
    page[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = bytes(4)
    inverted = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF)
    struct.pack_into("<I", page, CHECKSUM_OFFSET, int(f"{inverted ^ 0xFFFFFFFF:032b}"[::-1], 2))
    return bytes(page)


def _pages(content: Content) -> Iterator[Page]:
    at = 0
    while content[at : at + 4] == b"OggS" and at + PAGE_HEADER <= len(content):
        lengths = content[at + PAGE_HEADER : at + PAGE_HEADER + content[at + COUNT_OFFSET]]
        end = at + PAGE_HEADER + len(lengths) + sum(lengths)
        position, stream = struct.unpack_from("<qI", content, at + POSITION_OFFSET)
        yield Page(at, end, content[at + FLAGS_OFFSET], stream, position)
        at = end

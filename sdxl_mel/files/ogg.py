"""The pages of an Ogg file (RFC 3533): are they all there, and whose are they."""

import struct
import zlib
from pathlib import Path

MAX_PAGE_BYTES = 1 << 16
FLAGS_OFFSET, SERIAL_OFFSET, CHECKSUM_OFFSET, COUNT_OFFSET = 5, 14, 22, 26
LAST_PAGE = 4
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_whole(path: Path) -> bool:
    """Return whether the last page of an Ogg file says that it is the last."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_PAGE_BYTES))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and bool(tail[page + FLAGS_OFFSET] & LAST_PAGE)


def clear_serial(path: Path) -> None:
    """Set the random serial number of the one stream in a file to zero, so that the same sound makes the same bytes."""
    with path.open("r+b") as file:
        while header := file.read(COUNT_OFFSET + 1):
            lengths = file.read(header[COUNT_OFFSET])
            page = bytearray(header + lengths + file.read(sum(lengths)))
            page[SERIAL_OFFSET : SERIAL_OFFSET + 4] = page[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = bytes(4)
            struct.pack_into("<I", page, CHECKSUM_OFFSET, _checksum(page))
            file.seek(-len(page), 1)
            file.write(page)


def _checksum(page: bytes | bytearray) -> int:
    """Return the CRC of a page whose own checksum is zero.

    It is zlib's polynomial, but with the highest bit first and without the inversions before and after.
    """
    inverted = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF)
    return int(f"{inverted ^ 0xFFFFFFFF:032b}"[::-1], 2)

"""What libsndfile lacks for FLAC (RFC 9639): files joined to one, and a stated length that is too short.

libsndfile reads as many samples as the first block of a file states. Recorders that were killed, and cutters, leave a
number behind that is not that of the frames; the frames are numbered, so the last one says how many there are.
"""

import re

from sdxl_mel.files.containers import Content, split_at

START = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The marker, and the header of the block of 34 bytes that is always the first (section 8.2)."""
BLOCK_SIZE_OFFSET, LENGTH_OFFSET = 8, 21
"""Of the smallest block size; of the byte whose lower half begins the number of samples."""
FRAME = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\0-\xae][^\xff]")
"""How frames begin: the sync code, the strategy, the codes of block size, rate, channels and depth, a number."""
LONGEST_HEADER = 16
TAG_SIZE = 128
CHECKSUM = 0x107
"""The polynomial of a frame header's checksum (section 9.1.8)."""


def links(content: Content) -> list[Content]:
    """Return the parts of a FLAC file that was joined from several (sections 6 and 8.1)."""
    return split_at(content, [found.start() for found in START.finditer(content)])


def understates(content: Content) -> bool:
    """Say whether a file holds more samples than it states, as one does that states none."""
    stated = int.from_bytes(content[LENGTH_OFFSET : LENGTH_OFFSET + 5]) & 0xFFFFFFFFF
    return stated < _samples(content)


def without_length(content: Content) -> bytes:
    """Return the file with 0 as its number of samples, which means that it is read to its end.

    A tag behind it (ID3v1) is left out: the decoder would take it for a frame.
    """
    cleared = bytes([content[LENGTH_OFFSET] & 0xF0, 0, 0, 0, 0])
    end = len(content) - (TAG_SIZE if content[-TAG_SIZE:].startswith(b"TAG") else 0)
    return content[:LENGTH_OFFSET] + cleared + content[LENGTH_OFFSET + len(cleared) : end]


def _samples(content: Content) -> int:
    """Return the number of samples to the end of the last frame that is found, 0 where there is none."""
    block_size = int.from_bytes(content[BLOCK_SIZE_OFFSET : BLOCK_SIZE_OFFSET + 2])
    at = len(content)
    while (at := content.rfind(b"\xff", 0, at)) >= 0:
        end = _frame_end(content[at : at + LONGEST_HEADER], block_size)
        if end:
            return end
    return 0


def _frame_end(header: bytes, block_size: int) -> int:
    """Return the number of samples before the end of the frame that begins so, 0 where none does (section 9.1).

    Frames of one size are numbered, and of different sizes hold the number of samples before them.
    """
    if not FRAME.match(header):
        return 0
    number, at = _coded_number(header, 4)
    size_code, rate_code = header[2] >> 4, header[2] & 15
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    end = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if number < 0 or rate_code == 15 or len(header) <= end or _checksum(header[:end]) != header[end]:
        return 0
    if size_bytes:
        size = int.from_bytes(header[at : at + size_bytes]) + 1
    else:
        size = 192 if size_code == 1 else 144 << size_code if size_code < 6 else 1 << size_code
    return (number if header[1] & 1 else number * block_size) + size


def _coded_number(header: bytes, at: int) -> tuple[int, int]:
    """Return a number coded as UTF-8 codes characters, here of up to 36 bits, and the byte after it; -1 for none."""
    first = header[at]
    ones = 8 - (first ^ 0xFF).bit_length()
    if ones in (1, 8):
        return -1, at
    number = first & (0x7F >> ones)
    for byte in header[at + 1 : at + max(1, ones)]:
        number = number << 6 | byte & 0x3F
    return number, at + max(1, ones)


def _checksum(header: bytes) -> int:
    value = 0
    for byte in header:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ (CHECKSUM if value & 0x80 else 0)
    return value

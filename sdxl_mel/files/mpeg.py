"""MP3 files as they are: streams of frames, one after the other, with tags and other bytes between them.

libsndfile reads as much of an MP3 as its first frame states, and where that states nothing, as much as the bit rate of
the first frames makes likely. Of a file of a variable bit rate that lost its first frame, and of files joined to one,
it leaves out the rest without a word. So frames are counted here, and each stream is given a first frame that is right.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sdxl_mel.files.containers import Content

BIT_RATES = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Of layer III in kbit/s, in the order of their number from 1, of MPEG-1 (3) and of MPEG-2 and MPEG-2.5 (2)."""
SAMPLE_RATES = (44100, 48000, 32000)
HALVINGS = {3: 0, 2: 1, 0: 2}
"""How often the rates are halved, by the number of the version: MPEG-1, MPEG-2, MPEG-2.5."""
LAYER_3 = 1
MONO = 3
MADE_BIT_RATE = 8
"""The number of a bit rate whose frames have room for a count of frames."""
CANDIDATE = re.compile(rb"\xff[\xe0-\xff]|ID3|APETAGEX|LYRICSBEGIN|TAG")
"""How frames and tags begin."""
MIN_SHARE = 0.98
"""Of the frames that a stream states, and of its bytes: with less than these it is damaged."""


class Frame(NamedTuple):
    """A frame: its first byte and the byte after its last, and what all frames of a stream have in common."""

    start: int
    end: int
    kind: tuple[int, int, bool]


@dataclass
class Stream:
    """Frames that belong together, their kind, and the frame before them that states their number, where there is one.

    `count_at` is where in that frame the number stands; `lost` counts bytes between the frames that are none.
    """

    kind: tuple[int, int, bool]
    head: bytes = b""
    count_at: int = 0
    frames: list[bytes] = field(default_factory=list)
    lost: int = 0

    @property
    def stated(self) -> int | None:
        """Return the number of frames that is stated."""
        return int.from_bytes(self.head[self.count_at : self.count_at + 4]) if self.count_at else None

    @property
    def is_right(self) -> bool:
        """Say whether the stated number is that of the frames; encoders disagree on whether the first counts."""
        return self.stated is not None and abs(self.stated - len(self.frames)) <= 1

    @property
    def is_damaged(self) -> bool:
        """Say whether frames are missing: fewer than stated, or bytes between them that are none."""
        size = sum(map(len, self.frames)) + self.lost
        return len(self.frames) < (self.stated or 0) * MIN_SHARE or self.lost > (1 - MIN_SHARE) * size

    def content(self) -> bytes:
        """Return the bytes of the stream, beginning with a frame that states how many frames and bytes follow.

        The decoder speaks to the terminal of a number of bytes that is not so.
        """
        head, at = (self.head, self.count_at) if self.count_at else _counting_frame(self.frames[0])
        if size_at := _size_at(head, at):
            head = _stating(head, size_at, len(head) + sum(map(len, self.frames)))
        return b"".join([head if self.is_right else _stating(head, at, len(self.frames)), *self.frames])


def streams(content: Content) -> list[Stream]:
    """Return the streams of an MP3 file; none of a file of another kind.

    A stream begins at a frame that counts frames, after the last one counted, and where the rate or the channels
    change. ID3, APE and Lyrics tags are left out.
    """
    found: list[Stream] = []
    for frame, lost in _frames(content):
        piece = content[frame.start : frame.end]
        count_at = _count_at(piece, frame.kind)
        if count_at is not None:
            found.append(Stream(frame.kind, piece, count_at))
            continue
        if not found or frame.kind != found[-1].kind or len(found[-1].frames) == (found[-1].stated or -1) + 1:
            found.append(Stream(frame.kind))
        elif found[-1].frames:
            found[-1].lost += lost
        found[-1].frames.append(piece)
    return [stream for stream in found if stream.frames]


def begins_with_a_frame(content: Content) -> bool:
    """Say whether a file begins as an MP3 does, also where no other frame follows."""
    return _frame_at(content, 0) is not None


def after_tags(content: Content) -> int:
    """Return the first byte after the ID3 tags that a file begins with, of any number and size."""
    at = 0
    while size := _tag_size(content, at):
        at += size
    return at


def _frames(content: Content) -> Iterator[tuple[Frame, int]]:
    """Yield each frame, and how many bytes before it belong to nothing.

    What looks like a frame by chance is not followed by another.
    """
    at, lost = 0, 0
    last: Frame | None = None
    while at < len(content):
        frame = _frame_at(content, at)
        if frame is not None and (
            (last and last.end == at and last.kind == frame.kind) or _is_followed(content, frame)
        ):
            yield frame, lost
            last, at, lost = frame, frame.end, 0
        elif size := _tag_size(content, at):
            at += size
        else:
            place = CANDIDATE.search(content, at + 1)
            following = place.start() if place else len(content)
            lost += len(content[at:following].strip(b"\0"))
            at = following


def _is_followed(content: Content, frame: Frame) -> bool:
    following = _frame_at(content, frame.end)
    return following is not None and following.kind == frame.kind


def _frame_at(content: Content, at: int) -> Frame | None:
    """Return the frame of layer III that begins at a byte and ends in the file."""
    header = content[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] >> 5 != 7:
        return None
    version, layer, number, rate = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in HALVINGS or layer != LAYER_3 or not 0 < number < 15 or rate == 3:
        return None
    hertz = SAMPLE_RATES[rate] >> HALVINGS[version]
    bits = 1000 * BIT_RATES[3 if version == 3 else 2][number - 1]
    size = (144 if version == 3 else 72) * bits // hertz + (header[2] >> 1 & 1)
    end = at + size
    return Frame(at, end, (version, hertz, header[3] >> 6 == MONO)) if end <= len(content) else None


def _count_at(piece: bytes, kind: tuple[int, int, bool]) -> int | None:
    """Return where a frame states the number of frames (Xing and LAME; Fraunhofer): 0 nowhere, None in one of sound."""
    at = _xing_at(kind)
    if piece[at : at + 4] in (b"Xing", b"Info"):
        return at + 8 if piece[at + 7] & 1 else 0
    return 36 + 14 if piece[36:40] == b"VBRI" else None


def _size_at(head: bytes, count_at: int) -> int:
    """Return where a frame that states a number of frames states their bytes too, 0 where it does not."""
    if head[count_at - 8 : count_at - 4] in (b"Xing", b"Info"):
        return count_at + 4 if head[count_at - 5] & 2 else 0
    return count_at - 4


def _stating(head: bytes, at: int, number: int) -> bytes:
    return head[:at] + number.to_bytes(4) + head[at + 4 :]


def _xing_at(kind: tuple[int, int, bool]) -> int:
    """Return the first byte after a frame's header and side information."""
    version, _, mono = kind
    return 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))


def _counting_frame(piece: bytes) -> tuple[bytes, int]:
    """Return a frame like `piece` that holds no sound, and where it states the number of frames."""
    header = bytes([piece[0], piece[1] | 1, MADE_BIT_RATE << 4 | piece[2] & 0b1100, piece[3]])
    made = _frame_at(header + bytes(1 << 12), 0)
    assert made is not None, "its header is that of a frame"
    at = _xing_at(made.kind)
    return (header.ljust(at, b"\0") + b"Xing" + (1).to_bytes(4)).ljust(made.end, b"\0"), at + 8


def _tag_size(content: Content, at: int) -> int:
    """Return the size of the tag that begins at a byte, 0 where there is none: ID3v2, ID3v1, APE, Lyrics3."""
    head = content[at : at + 32]
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte
        # A size that no file can have is damage of the tag, and the sound begins somewhere after its header.
        return 10 + (size + 10 * (head[5] >> 4 & 1) if at + size < len(content) else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    if head[:11] == b"LYRICSBEGIN":
        end = max(content.find(b"LYRICS200", at), content.find(b"LYRICSEND", at))
        return end + 9 - at if end > 0 else 0
    return 128 if head[:3] == b"TAG" else 0

"""What libsndfile lacks for files of chunks (WAV and its relatives).

Whether a file is whole, sizes that a recorder did not know or that are too small, files joined to one, long comments,
loop points, and the same bytes every time.
"""

import mmap
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

Content = bytes | mmap.mmap
CHUNK_HEADER = struct.Struct("<4sI")
SAMPLER = struct.Struct("<15I")
PEAK_TIME_OFFSET = 4
MIDDLE_C = 60
CHUNK_START = re.compile(rb"\0{0,7}([ -~]{4}|ID3)")
"""How a chunk begins after another one: rounding, and four letters. A tag of another kind may stand in its place."""
SECTOR = 4096
"""What a disk leaves behind a file is at most so many bytes; more of what is no chunk is sound."""


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

    The sound of an AU file is taken for a chunk.
    """
    if content[:4] == b".snd" and len(content) >= 24:
        start, size = struct.unpack_from(">II", content, 4)
        return Chunk(b".snd", start, size, 8, ">I")
    return next((chunk for chunk in _chunks(content) if chunk.name in SOUND_CHUNKS), None)


def missing_bytes(content: Content, sound: Chunk) -> int:
    """Return by how many bytes a file is shorter than its sound says; 0 for a whole one."""
    return max(0, sound.start + sound.size - len(content))


def is_of_unknown_size(content: Content, sound: Chunk) -> bool:
    """Say whether the size that is stated is not that of the sound.

    It was stated before it was known (0 before sound, or one that no file has), or before more sound was written, so
    that what follows the sound is no chunk.
    """
    end = sound.start + sound.size
    if sound.size <= 0:
        *_, last = [sound, *_chunks(content)]
        return sound.start < len(content) and not -1 <= last.start + last.size - len(content) <= 1
    large = 1 << 60 if struct.calcsize(sound.number) == 8 else 0x7E000000
    if sound.size >= large:
        return missing_bytes(content, sound) > 0
    return len(content) - end > SECTOR and not CHUNK_START.match(content, end) and bool(content[end:].strip(b"\0"))


def with_size(content: Content, sound: Chunk) -> bytes:
    """Return the file with the size of its sound stated as the rest of the file."""
    own = FORMS[content[:4]].own if content[:4] in FORMS else 0
    largest = 256 ** struct.calcsize(sound.number) - 1
    size = struct.pack(sound.number, min(len(content) - sound.start + own, largest))
    return b"".join([content[: sound.size_at], size, content[sound.size_at + len(size) :]])


def split_at(content: Content, starts: Sequence[int]) -> list[Content]:
    """Return the parts of a file of which each begins at one of `starts`, the first at its beginning."""
    inner = [start for start in starts if start > 0]
    return [content[a:b] for a, b in zip([0, *inner], [*inner, len(content)])] if inner else [content]


def links(content: Content) -> list[Content]:
    """Return the parts of a file of chunks that was joined from several: the next begins where a chunk could."""
    parts: list[Content] = []
    while at := _next_file(content):
        parts.append(content[:at])
        content = content[at:]
    return [*parts, content]


def _next_file(content: Content) -> int:
    """Return where another file of chunks begins behind the chunks of the first, 0 for none."""
    sound = sound_chunk(content)
    if content[:4] == b".snd" and sound is not None:
        end = sound.start + sound.size
        return end if content[end : end + 4] == b".snd" else 0
    for chunk in _chunks(content):
        if chunk.name[:4] in FORMS:
            return chunk.start - FORMS[content[:4]].header.size
    return 0


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
    """Yield the chunks of a file made of chunks; none of another file, and none after one without a name.

    Of RF64 the size of the sound is the one that stands in the chunk `ds64`.
    """
    large: Chunk | None = None
    form = FORMS.get(content[:4])
    at = form.first if form else len(content)
    while form and at + form.header.size <= len(content):
        name, size = form.header.unpack_from(content, at)
        if not name.strip(b"\0"):
            return
        start, number = at + form.header.size, form.header.format[0] + form.header.format[-1]
        chunk = Chunk(name, start, size - form.own, start - struct.calcsize(number), number)
        if name == b"ds64" and len(content) >= start + 16:
            large = Chunk(b"data", 0, struct.unpack_from("<Q", content, start + 8)[0], start + 8, "<Q")
        elif large and name == large.name and size == 0xFFFFFFFF:
            chunk = large._replace(start=start)
        yield chunk
        at = start + max(0, -(-chunk.size // form.rounded) * form.rounded)

"""WebAssembly as bytes: instructions, functions, and functions of a module with other code.

An instruction is named after what it does; what it works on is given as the code that leaves that on the stack.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sdxl_mel.errors import FormatError
from sdxl_mel.record import sha256_bytes

I32, V128 = b"\x7f", b"\x7b"
VECTOR_NUMBERS, NUMBER_BYTES = 4, 4
"""A vector is four float32."""
VECTOR_BYTES = VECTOR_NUMBERS * NUMBER_BYTES
HEADER_BYTES = 8
CODE_SECTION = 10
NO_VALUE, END = b"\x40", b"\x0b"


class Variable(NamedTuple):
    """A parameter of a function, or a number or vector that it keeps."""

    number: int

    @property
    def value(self) -> bytes:
        """What it is now."""
        return b"\x20" + unsigned(self.number)

    def set(self, value: bytes) -> bytes:
        """Keep another value."""
        return value + b"\x21" + unsigned(self.number)

    def move(self, step: int) -> bytes:
        """Add to a whole number."""
        return self.set(plus(self.value, number(step)))


@dataclass
class Function:
    """What a function keeps besides so many parameters."""

    parameters: int
    kinds: list[bytes] = field(default_factory=list)

    def variables(self, kind: bytes, count: int) -> list[Variable]:
        """Return new variables, `I32` or `V128`."""
        first = self.parameters + len(self.kinds)
        self.kinds += [kind] * count
        return [Variable(first + each) for each in range(count)]

    def body(self, code: bytes) -> bytes:
        """Return its variables and code as a module has them."""
        return unsigned(len(self.kinds)) + b"".join(b"\x01" + kind for kind in self.kinds) + code + END


def number(value: int) -> bytes:
    """Return a whole number."""
    return b"\x41" + signed(value)


def plus(a: bytes, b: bytes) -> bytes:
    """Add whole numbers."""
    return a + b + b"\x6a"


def doubled(a: bytes, times: int) -> bytes:
    """Double a whole number so many times."""
    return a + number(times) + b"\x74"


def at_least(a: bytes, least: int) -> bytes:
    """Ask whether a whole number, 0 or larger, is so large."""
    return a + number(least) + b"\x4f"


def zeros() -> bytes:
    """Return a vector of zeros."""
    return _vector(12) + bytes(VECTOR_BYTES)


def splat(a: bytes) -> bytes:
    """Return a number four times."""
    return a + _vector(19)


def load(place: bytes, offset: int = 0) -> bytes:
    """Read the vector `offset` bytes behind an address."""
    return place + _vector(0) + _aligned(offset)


def load_splat(place: bytes, offset: int = 0) -> bytes:
    """Read the number there, four times."""
    return place + _vector(9) + _aligned(offset)


def load_number(place: bytes, offset: int = 0) -> bytes:
    """Read the number there."""
    return place + b"\x2a" + _aligned(offset)


def store(place: bytes, a: bytes, offset: int = 0) -> bytes:
    """Write a vector there."""
    return place + a + _vector(11) + _aligned(offset)


def store_number(place: bytes, a: bytes, offset: int = 0) -> bytes:
    """Write a number there."""
    return place + a + b"\x38" + _aligned(offset)


def number_in(a: bytes, lane: int) -> bytes:
    """Return one number of a vector."""
    return a + _vector(31) + bytes([lane])


def add_numbers(a: bytes, b: bytes) -> bytes:
    """Add two numbers."""
    return a + b + b"\x92"


def add(a: bytes, b: bytes) -> bytes:
    """Add vectors."""
    return a + b + _vector(0xE4)


def mul(a: bytes, b: bytes) -> bytes:
    """Multiply vectors."""
    return a + b + _vector(0xE6)


def mul_add(a: bytes, b: bytes, c: bytes) -> bytes:
    """Return a b + c, which a processor that can rounds once: an instruction of relaxed SIMD."""
    return a + b + c + _vector(0x105)


def loop(code: bytes) -> bytes:
    """Return code to whose start `again` goes."""
    return b"\x03" + NO_VALUE + code + END


def again(condition: bytes, levels: int = 0) -> bytes:
    """Go to the start of the loop that is `levels` further out than the innermost, where a whole number is not 0."""
    return condition + b"\x0d" + unsigned(levels)


def where(condition: bytes, code: bytes) -> bytes:
    """Do something where a whole number is not 0."""
    return condition + b"\x04" + NO_VALUE + code + END


def give(a: bytes) -> bytes:
    """Return a value from the function."""
    return a + b"\x0f"


def unsigned(value: int) -> bytes:
    """Return a whole number, 0 or larger, in groups of seven bits, the lowest ones first (LEB128)."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + unsigned(value >> 7)


def signed(value: int) -> bytes:
    """Return a whole number in groups of seven bits, the last of which tells the sign."""
    return bytes([value & 0x7F]) if -0x40 <= value < 0x40 else bytes([value & 0x7F | 0x80]) + signed(value >> 7)


def replace_functions(module: bytes, bodies: Mapping[str, bytes]) -> bytes:
    """Return a module with other bodies in place of those with these SHA-256.

    Raises FormatError where the module has none such.
    """
    missing = set(bodies)

    def changed(function: bytes) -> bytes:
        digest = sha256_bytes(function)
        missing.discard(digest)
        return sized(bodies.get(digest, function))

    content = bytearray(module[:HEADER_BYTES])
    for kind, section in _sections(module):
        functions = [changed(function) for function in _functions(section)] if kind == CODE_SECTION else []
        content += bytes([kind]) + sized(unsigned(len(functions)) + b"".join(functions) if functions else section)
    if missing:
        raise FormatError(f"a WebAssembly module has no function of the SHA-256 {min(missing)}: it is another version")
    return bytes(content)


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    at = HEADER_BYTES
    while at < len(module):
        size, start = _read_unsigned(module, at + 1)
        yield module[at], module[start : start + size]
        at = start + size


def _functions(section: bytes) -> Iterator[bytes]:
    count, at = _read_unsigned(section, 0)
    for _ in range(count):
        size, start = _read_unsigned(section, at)
        at = start + size
        yield section[start:at]


def _read_unsigned(content: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where what follows it begins."""
    value = shift = 0
    while content[at] & 0x80:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1


def sized(content: bytes) -> bytes:
    """Return a function's body, or the content of a section, with its size before it."""
    return unsigned(len(content)) + content


def _vector(operation: int) -> bytes:
    return b"\xfd" + unsigned(operation)


def _aligned(offset: int) -> bytes:
    """Say that an address is a multiple of a number's bytes, and what is added to it."""
    return b"\x02" + unsigned(offset)

"""The exceptions of the toolkit; each message says where, what was found, what was expected and what to do.

SdxlMelError
├── InputError            what the user gave cannot be used
│   ├── FormatError       a file is not what it should be: corrupt, truncated, of another kind
│   └── MismatchError     two things that must belong together do not
├── MissingError          something optional is needed and absent: a package, weights, a device
└── ResourceError         the machine cannot: disk full, out of memory, folder not writable
"""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What moves a terminal's cursor or begins a line, for some program that splits text into lines."""


def printable(text: str) -> str:
    r"""Return text without what no encoding can write: a byte of a file's name that is not UTF-8 becomes `\xe9`.

    >>> printable("caf\udce9.mp3")
    'caf\\xe9.mp3'
    """
    return _SURROGATE.sub(lambda match: _escaped(ord(match.group())), text)


def in_one_line(text: str) -> str:
    r"""Return text as one line that can be written anywhere: control characters and ends of lines are escaped.

    >>> in_one_line("ca\fption\u2028")
    'ca\\x0cption\\u2028'
    """
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], printable(text))


def _escaped(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


class SdxlMelError(Exception):
    """Any failure the toolkit foresees; a command prints it in one line and exits with code 2."""

    def __init__(self, message: str) -> None:
        """Keep a message in one line that can be written anywhere, whatever names and values are in it."""
        super().__init__(in_one_line(message))


class InputError(SdxlMelError):
    """What the user gave cannot be used."""


class FormatError(InputError):
    """A file is not what it should be: corrupt, truncated or of another kind."""


class MismatchError(InputError):
    """Two artefacts that must belong together do not; the message lists what differs."""


class MissingError(SdxlMelError):
    """Something optional is needed and absent; the message says how to get it."""


class ResourceError(SdxlMelError):
    """The machine cannot do it: no space, no memory, no permission."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's message."""
    return str(error).strip().partition("\n")[0]

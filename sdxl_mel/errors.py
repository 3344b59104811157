"""The exceptions of the toolkit; each message says where, what was found, what was expected and what to do.

SdxlMelError
├── InputError            what the user gave cannot be used
│   ├── FormatError       a file is not what it should be: corrupt, truncated, of another kind
│   └── MismatchError     two things that must belong together do not
├── MissingError          something optional is needed and absent: a package, weights, a device
└── ResourceError         the machine cannot: disk full, out of memory, folder not writable
"""


class SdxlMelError(Exception):
    """Any failure the toolkit foresees; a command prints it in one line and exits with code 2."""


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

"""Who looks on while a command draws: set for a block, as the sink of progress is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from sdxl_mel.arrays import Float
from sdxl_mel.files.results import Entry
from sdxl_mel.synthesis.results import Step


@dataclass(frozen=True)
class Watch:
    """What is called, with what it may raise to stop the drawing, as Ctrl-C does: KeyboardInterrupt.

    `on_step` after every sampling step; `on_sound` with each block of a result's sound as it is made: the sound's file
    without its suffix, samples (channels, n), their rate; `on_result` with every result that is finished, or was: its
    folder, what is listed of it, and the seconds at which its views meet.
    """

    on_step: Callable[[Step], None] = lambda step: None
    on_sound: Callable[[Path, Float, int], None] = lambda file, samples, rate: None
    on_result: Callable[[Path, Entry, Sequence[float]], None] = lambda folder, entry, seams: None


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let `watch` look on in the block, and in the threads that it starts."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)


def current_watch() -> Watch:
    """Return who looks on."""
    return _current.get() or _NOBODY


_current: ContextVar[Watch | None] = ContextVar("watch", default=None)
_NOBODY = Watch()

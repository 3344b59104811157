"""Who looks on while a command draws: set for a block, as the sink of progress is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from sdxl_mel.arrays import Float
from sdxl_mel.synthesis.layout import Layout
from sdxl_mel.synthesis.manifest import Entry


@dataclass(frozen=True)
class Watch:
    """What is called, with what it may raise to stop the drawing, as Ctrl-C does: KeyboardInterrupt.

    `on_step` after every step of a call of `Generator.draw`, with its number, the number of all, and the latents;
    `on_sound` with each piece of a result's sound as it is made, (channels, n), where the whole takes long;
    `on_result` with every result that is finished, or was, and how it is laid out.
    """

    on_step: Callable[[int, int, Tensor], None] = lambda number, total, latents: None
    on_sound: Callable[[str, Float], None] = lambda name, samples: None
    on_result: Callable[[Entry, Layout], None] = lambda entry, layout: None


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

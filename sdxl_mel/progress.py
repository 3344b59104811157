"""Progress of long work, with a rate and an estimate: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

LINE_EVERY_SECONDS = 15.0

_verbosity = {"quiet": False, "verbose": False}


class Ticker(Protocol):
    """Told of finished items; `note` is a short text beside the bar."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as finished."""


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set how much the program says for the rest of the process."""
    _verbosity.update(quiet=quiet, verbose=verbose)


def log(message: str, *, detail: bool = False) -> None:
    """Print a line to stderr; a `detail` only with --verbose, nothing with --quiet."""
    if _verbosity["quiet"] or (detail and not _verbosity["verbose"]):
        return
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


def track(items: Iterable[Item], total: int, what: str, unit: str = "items") -> Iterator[Item]:
    """Yield `items` one by one while showing progress."""
    with progress(total, what, unit) as ticker:
        for item in items:
            yield item
            ticker.advance()


@contextmanager
def progress(total: int, what: str, unit: str = "items", done: int = 0) -> Iterator[Ticker]:
    """Show progress of `total` items while the block runs; `done` were finished earlier and are not rated."""
    if _verbosity["quiet"]:
        yield _Silent()
    elif sys.stderr.isatty():
        with _Bar(total, what, unit, done) as bar:
            yield bar
    else:
        yield _Lines(total, what, unit, done)


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Lines:
    def __init__(self, total: int, what: str, unit: str, done: int) -> None:
        self.total, self.what, self.unit, self.done, self.earlier = total, what, unit, done, done
        self.start = self.last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < LINE_EVERY_SECONDS and self.done < self.total:
            return
        self.last = now
        rate = (self.done - self.earlier) / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else 0.0
        log(f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.2f}/s, {left:.0f} s left {note}".rstrip())


class _Bar:
    def __init__(self, total: int, what: str, unit: str, done: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.unit, self.earlier, self.start = unit, done, time.monotonic()
        self.task = self.progress.add_task(what, total=total, completed=done, rate="", note="")

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        completed = self.progress.tasks[0].completed + count - self.earlier
        rate = completed / max(time.monotonic() - self.start, 1e-9)
        self.progress.update(self.task, advance=count, rate=f"{rate:.2f} {self.unit}/s", note=note)

"""Progress of long work and messages, as events to a sink: a bar on a terminal, plain lines, JSON lines, or nothing.

An entry point chooses the sink, `with showing(named_sink("json")): ...`; until one is chosen, a bar or lines go to
stderr.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")

LINE_EVERY_SECONDS = 15.0
JSON_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Message:
    """A line for the reader; a `detail` is for those who asked for more."""

    text: str
    detail: bool = False


@dataclass(frozen=True)
class JobEvent:
    """Something happened to a job, which is `total` units of `what`; `done` are finished, by an earlier run too."""

    job: int
    what: str
    unit: str
    total: int
    done: int


@dataclass(frozen=True)
class Started(JobEvent):
    """A job began."""


@dataclass(frozen=True)
class Advanced(JobEvent):
    """More is finished, `rate` units a second in this run; `note` is a short text beside the numbers."""

    rate: float
    remaining_seconds: float | None
    note: str


@dataclass(frozen=True)
class Finished(JobEvent):
    """A job ended after `seconds`, early where `done` is less than `total`."""

    seconds: float


Event: TypeAlias = Message | Started | Advanced | Finished
Sink: TypeAlias = Callable[[Event], None]
SinkName: TypeAlias = Literal["auto", "bar", "lines", "json", "none"]


class Ticker:
    """A job that runs: tells a sink what is finished."""

    def __init__(self, sink: Sink, started: Started) -> None:
        self.sink, self.started, self.done, self.start = sink, started, started.done, time.monotonic()
        sink(started)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as finished; `note` is a short text beside the bar."""
        self.done += count
        rate = (self.done - self.started.done) / max(self.seconds(), 1e-9)
        remaining = (self.started.total - self.done) / rate if rate else None
        self.sink(Advanced(**self.facts(), rate=rate, remaining_seconds=remaining, note=note))

    def facts(self) -> dict[str, Any]:
        """Return what every event of the job says."""
        return asdict(self.started) | {"done": self.done}

    def seconds(self) -> float:
        """Return how long the job has run."""
        return time.monotonic() - self.start


def named_sink(name: SinkName = "auto", *, verbose: bool = False) -> Sink:
    """Return a sink to stderr; with `verbose` it shows details too. "auto" is a bar on a terminal, else lines."""
    if name == "none":
        return _nowhere
    if name == "json":
        return JsonLines(sys.stderr)
    bar = name == "bar" or (name == "auto" and sys.stderr.isatty())
    return Bar(verbose) if bar else Lines(verbose)


@contextmanager
def showing(sink: Sink) -> Iterator[None]:
    """Send the events of the block, and of the workers that it starts, to `sink`; then to the one before."""
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def muted(when: bool = True) -> Iterator[None]:
    """Send the events of the block nowhere, if `when` says so: all processes but one of several."""
    with showing(_nowhere if when else _sink()):
        yield


def log(message: str, *, detail: bool = False) -> None:
    """Say a line; a `detail` is shown with --verbose only."""
    _sink()(Message(message, detail))


def track(items: Iterable[Item], total: int, what: str, unit: str = "items") -> Iterator[Item]:
    """Yield `items` one by one while showing progress."""
    with progress(total, what, unit) as ticker:
        for item in items:
            yield item
            ticker.advance()


@contextmanager
def progress(total: int, what: str, unit: str = "items", done: int = 0) -> Iterator[Ticker]:
    """Show progress of `total` items while the block runs; `done` were finished earlier and are not rated."""
    sink = _sink()
    ticker = Ticker(sink, Started(next(_numbers), what, unit, total, done))
    try:
        yield ticker
    finally:
        sink(Finished(**ticker.facts(), seconds=ticker.seconds()))


class JsonLines:
    """Writes an event a line as a JSON object in ASCII, progress ten times a second at most."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.paced = stream, _Paced(JSON_EVERY_SECONDS)

    def __call__(self, event: Event) -> None:
        """Write an event that is due."""
        if not isinstance(event, Advanced) or self.paced.is_due(event):
            line = {"event": type(event).__name__.lower()} | asdict(event)
            self.stream.write(json.dumps(line, allow_nan=False) + "\n")
            self.stream.flush()


class Lines:
    """Prints messages to stderr, and progress now and then."""

    def __init__(self, verbose: bool = False) -> None:
        self.verbose, self.paced = verbose, _Paced(LINE_EVERY_SECONDS)

    def __call__(self, event: Event) -> None:
        """Print an event that is due."""
        match event:
            case Message(text, detail) if self.verbose or not detail:
                print(text, file=sys.stderr, flush=True)
            case Started():
                self.paced.last[event.job] = time.monotonic()
            case Advanced() if self.paced.is_due(event):
                line = (
                    f"{event.what}: {event.done}/{event.total} {event.unit}, {event.rate:.2f}/s, "
                    f"{event.remaining_seconds or 0.0:.0f} s left {event.note}"
                )
                print(line.rstrip(), file=sys.stderr, flush=True)


class Bar:
    """Prints messages to stderr above the bars of the jobs that run."""

    def __init__(self, verbose: bool = False) -> None:
        # Bars alone need rich, which takes a tenth of a second to load.
        from rich import console, progress

        self.verbose, self._bars = verbose, progress
        self.console = console.Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)
        self.shown: Progress | None = None
        self.tasks: dict[int, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Message(text, detail) if self.verbose or not detail:
                self.console.print(text, markup=False)
            case Started():
                self._begin(event)
            case Advanced() if self.shown is not None:
                rate = f"{event.rate:.2f} {event.unit}/s"
                self.shown.update(self.tasks[event.job], completed=event.done, rate=rate, note=event.note)
            case Finished():
                del self.tasks[event.job]
                if self.shown is not None and not self.tasks:
                    self.shown.stop()
                    self.shown = None

    def _begin(self, event: Started) -> None:
        if self.shown is None:
            bars = self._bars
            self.shown = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.shown.start()
        self.tasks[event.job] = self.shown.add_task(
            event.what, total=event.total, completed=event.done, rate="", note=""
        )


class _Paced:
    """Says which steps of a job are due: some time after the one before, and the last."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last: dict[int, float] = {}

    def is_due(self, event: Advanced) -> bool:
        now = time.monotonic()
        due = event.done >= event.total or now - self.last.get(event.job, -math.inf) >= self.seconds
        if due:
            self.last[event.job] = now
        return due


def _nowhere(_event: Event) -> None:
    pass


_numbers = count(1)
_current: ContextVar[Sink | None] = ContextVar("sink", default=None)
_default_sink = cache(named_sink)


def _sink() -> Sink:
    return _current.get() or _default_sink()

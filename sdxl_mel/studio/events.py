"""What the pages are told as it happens, with numbers, so that a page that was away hears what it missed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KEPT = 1000
"""Events that a page can miss before it has to read everything again."""
WAITING = 2000
"""Events that wait for a page that does not read; beyond them it is told to read everything again."""
MOST_PAGES = 4
"""Streams at a time. A browser has six connections to one server for all its tabs: with one more stream than that every
tab would wait for ever. The oldest stream ends for a new one, and its page comes back after a second, as EventSource
does.
"""


@dataclass(frozen=True)
class Event:
    """A named event; those without a number are not told again."""

    name: str
    data: Mapping[str, Any]
    number: str | None = None


class Events:
    """Tells every page the same events in the same order; `epoch` names this start of the server."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._count = 0
        self._kept: deque[tuple[int, Event]] = deque(maxlen=KEPT)
        self._pages: dict[asyncio.Queue[Event | None], None] = {}

    def tell(self, name: str, data: Mapping[str, Any], keep: bool = True) -> None:
        """Tell an event; without `keep` only to the pages that are there."""
        number = None
        if keep:
            self._count += 1
            number = f"{self.epoch}-{self._count}"
        event = Event(name, data, number)
        if keep:
            self._kept.append((self._count, event))
        for page in self._pages:
            if page.qsize() >= WAITING:
                while not page.empty():
                    page.get_nowait()
                event = Event("reset", {}, f"{self.epoch}-{self._count}")
            page.put_nowait(event)

    def missed(self, last: str | None) -> Iterator[Event]:
        """Yield what a page has missed since its `last` event; "reset" where that is not known any more."""
        epoch, _, number = (last or "").rpartition("-")
        if not last:
            return
        oldest = self._kept[0][0] if self._kept else self._count + 1
        if epoch != self.epoch or not number.isdecimal() or not oldest - 1 <= int(number) <= self._count:
            yield Event("reset", {}, f"{self.epoch}-{self._count}")
            return
        yield from (event for count, event in self._kept if count > int(number))

    @contextmanager
    def _page(self) -> Iterator[asyncio.Queue[Event | None]]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._pages[queue] = None
        while len(self._pages) > MOST_PAGES:
            oldest = next(iter(self._pages))
            del self._pages[oldest]
            oldest.put_nowait(None)
        try:
            yield queue
        finally:
            self._pages.pop(queue, None)

    async def heard(self, last: str | None, first: Event) -> AsyncIterator[Event]:
        """Yield `first`, what was missed since `last`, and then every event as it is told, while it has its turn."""
        with self._page() as page:
            missed = list(self.missed(last))
            # With the newest number, so that a page that hears nothing else can still come back.
            yield Event(first.name, first.data, f"{self.epoch}-{self._count}" if not missed else None)
            for event in missed:
                yield event
            while (told := await page.get()) is not None:
                yield told

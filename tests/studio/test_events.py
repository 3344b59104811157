"""Events: every page hears the same in the same order, and one that was away hears what it missed."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from sdxl_mel.studio.events import KEPT, MOST_PAGES, WAITING, Event, Events

Result = TypeVar("Result")
HELLO = Event("hello", {})


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """Return what a scenario returns, in a thread of its own: the tests of pages may have a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, scenario).result()


async def first(heard: AsyncIterator[Event], count: int) -> list[str]:
    return [(await anext(heard)).name for _ in range(count)]


def told(count: int, epoch: str = "e") -> Events:
    events = Events(epoch)
    for number in range(1, count + 1):
        events.tell(str(number), {})
    return events


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, []),
        ("e-3", []),
        ("e-1", ["2", "3"]),
        ("e-0", ["1", "2", "3"]),
        ("other-2", ["reset"]),
        ("e-4", ["reset"]),
        ("e-x", ["reset"]),
        ("\x00", ["reset"]),
    ],
)
def test_what_was_missed_is_told(last: str | None, expected: list[str]) -> None:
    assert [event.name for event in told(3).missed(last)] == expected


def test_what_is_no_longer_known_is_read_again() -> None:
    events = told(KEPT + 5)
    assert [event.name for event in events.missed("e-2")] == ["reset"]
    assert len(list(events.missed("e-5"))) == KEPT


def test_all_pages_hear_the_same() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        events = told(2)
        one, other = events.heard(None, HELLO), events.heard("e-1", HELLO)
        before = await first(one, 1), await first(other, 2)
        events.tell("3", {})
        events.tell("step", {}, keep=False)
        return before[0] + await first(one, 2), before[1] + await first(other, 2)

    assert run(scenario()) == (["hello", "3", "step"], ["hello", "2", "3", "step"])


def test_a_page_that_does_not_read_is_told_to_read_everything_again() -> None:
    async def scenario() -> list[str]:
        events = Events("e")
        page = events.heard(None, HELLO)
        await anext(page)
        for _ in range(WAITING + 1):
            events.tell("step", {}, keep=False)
        return await first(page, 1)

    assert run(scenario()) == ["reset"]


def test_the_oldest_stream_ends_for_a_new_one_and_misses_nothing() -> None:
    async def scenario() -> list[str]:
        events = Events("e")
        pages = [events.heard(None, HELLO) for _ in range(MOST_PAGES + 1)]
        for page in pages:
            await anext(page)
        events.tell("1", {})
        with pytest.raises(StopAsyncIteration):
            await anext(pages[0])
        return [*await first(pages[1], 1), *await first(events.heard("e-0", HELLO), 2)]

    assert run(scenario()) == ["1", "hello", "1"]

"""Read the next batches while the present one is encoded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Row = tuple[str, str]
Queued = tuple[list[Row], list[Future[Input]]]

BATCHES_AHEAD = 2
READERS = 2


def read_ahead(
    batches: Iterable[list[Row]], read: Callable[[str], Input]
) -> Iterator[tuple[list[Row], Sequence[Input]]]:
    """Yield every batch of (key, label) with what `read` makes of its labels, in order; raises what it raises."""
    queue: deque[Queued[Input]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for batch in batches:
                queue.append((batch, [pool.submit(read, label) for _, label in batch]))
                if len(queue) > BATCHES_AHEAD:
                    yield _finished(queue.popleft())
            while queue:
                yield _finished(queue.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finished(queued: Queued[Input]) -> tuple[list[Row], Sequence[Input]]:
    batch, futures = queued
    return batch, [future.result() for future in futures]

"""Many jobs, done here, in threads or in processes by one function, `map_jobs`.

torch's own threads meet after every operation: with short operations on a busy machine they wait for each other most
of the time (measured: 30 times slower on two busy cores). So every worker, thread or process, has a torch of one thread
and takes a whole job through all operations.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from multiprocessing.context import BaseContext
from typing import Any, Literal, TypeVar

import torch

from sdxl_mel.errors import InputError, ResourceError

Job = TypeVar("Job")
Result = TypeVar("Result")

Backend = Literal["here", "threads", "processes"]
Submit = Callable[[Any], Callable[[], Any]]
"""Begins a job, now or later; what it returns waits for the result, or raises what the job raised."""

LOOK_AHEAD: dict[Backend, int] = {"here": 0, "threads": 2, "processes": 8}
"""Jobs a worker that are drawn before their turn, so that a long job keeps no worker waiting for the next."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def map_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    backend: Backend = "threads",
    workers: int | None = None,
    look_ahead: int | None = None,
) -> Generator[Result, None, None]:
    """Yield what `function` makes of each job, in the order of the jobs; it raises what a job raised in its place.

    Jobs are drawn when they are due, at most `look_ahead` (default: LOOK_AHEAD a worker) before their result is
    yielded, so their number has no limit. An error, an interruption, or closing the iterator (a loop over it does so
    when it is left) cancels the jobs that have not begun and waits for the others: no worker is left.

    `workers` is by default as many threads as torch may use, or a process a core. Processes take functions and jobs
    that can be pickled, leave Ctrl-C to this process, and make a ResourceError of a worker that was killed, an
    InputError of a script that does not keep its workers from running it again.
    """
    if backend == "threads" and workers is None and torch.get_num_threads() == 1:
        backend = "here"
    count = workers or (torch.get_num_threads() if backend == "threads" else os.cpu_count() or 1)
    ahead = LOOK_AHEAD[backend] * count if look_ahead is None else look_ahead
    with BACKENDS[backend](function, count) as submit:
        begun: deque[Callable[[], Result]] = deque()
        for job in jobs:
            begun.append(submit(job))
            if len(begun) > ahead:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()


@contextmanager
def stoppable(check: Callable[[], None]) -> Iterator[None]:
    """Let `check` be called often while the block works, in its threads too; to stop, it raises KeyboardInterrupt."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def stop_if_asked() -> None:
    """Give who wants this work to stop the occasion: long work calls it between pieces of less than a second."""
    if (check := _check.get()) is not None:
        check()


_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def piecewise() -> Iterator[Executor | None]:
    """Yield an executor for many maps over pieces of a few milliseconds; None where torch may use one thread only.

    It has as many threads as torch was allowed. Meanwhile torch has one thread in the calling thread too.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield None
        return
    with one_thread(), ThreadPoolExecutor(count) as pool:
        yield pool


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to the calling thread while the block does many short operations."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


@contextmanager
def _here(function: Callable[[Any], Any], _workers: int) -> Iterator[Submit]:
    yield lambda job: lambda: function(job)


@contextmanager
def _threads(function: Callable[[Any], Any], workers: int) -> Iterator[Submit]:
    count = torch.get_num_threads()
    # The number of threads is each thread's own, but new threads begin with what was set last.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield lambda job: pool.submit(copy_context().run, function, job).result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(count)


@contextmanager
def _processes(function: Callable[[Any], Any], workers: int) -> Iterator[Submit]:
    pool = ProcessPoolExecutor(workers, mp_context=_context(function), initializer=_single_threaded)
    try:
        began = pool.submit(os.getpid)
        yield lambda job: pool.submit(function, job).result
    except BrokenProcessPool as error:
        if began.exception() is not None:
            raise InputError(
                "no worker could begin: each of them imports the script that was started, which must not start it all "
                'over again; put what the script does under `if __name__ == "__main__":`'
            ) from error
        raise ResourceError(
            "a worker was killed, most likely for want of memory; run it again with a smaller --jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context(function: Callable[[Any], Any]) -> BaseContext:
    """Return how processes start: forked from one that has imported `function` once and has no threads.

    Never forked from this process: torch's and BLAS's threads do not survive that.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([getattr(function, "func", function).__module__])  # A partial has `func`.
    return context


def _single_threaded() -> None:
    """Keep a process to its core, and leave Ctrl-C to its parent, which stops handing out work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    torch.set_num_threads(1)


BACKENDS: dict[Backend, Callable[[Callable[[Any], Any], int], AbstractContextManager[Submit]]] = {
    "here": _here,
    "threads": _threads,
    "processes": _processes,
}
"""A backend holds its workers open while `map_jobs` submits to it; a cluster would be one more."""

"""Rendering on all cores, with a bounded number of tracks in flight, so that memory does not grow with their number."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext

from sdxl_mel.dataset.render import Job, Rendered, render
from sdxl_mel.errors import ResourceError

IN_FLIGHT_PER_WORKER = 4
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def render_all(jobs: Sequence[Job], workers: int) -> Iterator[Rendered]:
    """Yield what became of each track, in order of completion.

    Raises ResourceError when the disk is full or a worker is killed; what is finished stays and is found again.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(render, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=_context(), initializer=_single_threaded)
    waiting: set[Future[Rendered]] = set()
    todo = iter(jobs)
    try:
        while True:
            for job in todo:
                waiting.add(pool.submit(render, job))
                if len(waiting) >= workers * IN_FLIGHT_PER_WORKER:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker was killed, most likely for want of memory; run it again with a smaller --jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> BaseContext:
    """Return how workers start: forked from a process that has imported everything once and has no threads.

    Never forked from this process: torch's and BLAS's threads do not survive that.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sdxl_mel.dataset.render"])
    return context


def _single_threaded() -> None:
    """Keep a worker to its core, and leave Ctrl-C to the parent, which stops handing out work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    import torch

    torch.set_num_threads(1)

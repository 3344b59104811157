"""Many jobs: the same results, errors and ends in every backend."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from sdxl_mel.errors import InputError, ResourceError
from sdxl_mel.execution import BACKENDS, Backend, map_jobs, one_thread, piecewise

every_backend = pytest.mark.parametrize("backend", list(BACKENDS))


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # So that later jobs end before earlier ones.
    return number**2


def refused(number: int, bad: int = 7) -> int:
    if number == bad:
        raise InputError(f"job {number} is bad")
    return square(number)


def torch_threads(_job: int) -> int:
    return torch.get_num_threads()


def killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def touch(path: Path) -> None:
    time.sleep(0.05)
    path.touch()


def workers_alive() -> int:
    return len(multiprocessing.active_children()) + threading.active_count()


@every_backend
def test_results_come_in_the_order_of_the_jobs(backend: Backend) -> None:
    assert list(map_jobs(square, range(40), backend=backend, workers=2)) == [number**2 for number in range(40)]
    assert list(map_jobs(square, [], backend=backend, workers=2)) == []


@every_backend
def test_an_error_comes_after_the_results_before_it(backend: Backend) -> None:
    before = workers_alive()
    results = map_jobs(partial(refused, bad=7), range(100), backend=backend, workers=2)
    assert list(islice(results, 7)) == [number**2 for number in range(7)]
    with pytest.raises(InputError, match="job 7 is bad"):
        next(results)
    assert next(results, None) is None
    assert workers_alive() == before


@every_backend
def test_jobs_without_end_are_drawn_when_they_are_due(backend: Backend) -> None:
    before = workers_alive()
    drawn: list[int] = []

    def jobs() -> Iterator[int]:
        for number in count():
            drawn.append(number)
            yield number

    with closing(map_jobs(square, jobs(), backend=backend, workers=2, look_ahead=5)) as results:
        assert list(islice(results, 10)) == [number**2 for number in range(10)]
    assert drawn == list(range(15))
    assert workers_alive() == before


@every_backend
def test_closing_cancels_what_has_not_begun(backend: Backend, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(60)]
    with closing(map_jobs(touch, paths, backend=backend, workers=2, look_ahead=60)) as results:
        next(results)
    made = {int(path.name) for path in tmp_path.iterdir()}
    assert {0} <= made < set(range(12)), "what had begun is finished, the others never begin"
    time.sleep(0.15)
    assert {int(path.name) for path in tmp_path.iterdir()} == made


@every_backend
def test_a_worker_has_a_torch_of_one_thread(backend: Backend) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside = set(map_jobs(torch_threads, range(8), backend=backend, workers=2))
        assert inside == ({3} if backend == "here" else {1})
        assert torch.get_num_threads() == 3
        thread: list[int] = []
        started = threading.Thread(target=lambda: thread.append(torch_threads(0)))
        started.start()
        started.join()
        assert thread == [3], "a thread that begins later is not held to one"
        with piecewise() as executor:
            assert executor is not None
            assert {*executor.map(torch_threads, range(8)), torch.get_num_threads()} == {1}
        assert torch.get_num_threads() == 3
        with pytest.raises(InputError), one_thread():
            assert torch.get_num_threads() == 1
            raise InputError("short operations")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_where_torch_has_one_thread_no_other_is_started() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert set(map_jobs(lambda _: threading.current_thread(), range(5))) == {threading.main_thread()}
        with piecewise() as executor:
            assert executor is None
    finally:
        torch.set_num_threads(before)


def test_a_killed_worker_is_said_in_one_line() -> None:
    results = map_jobs(killed, range(9), backend="processes", workers=1, look_ahead=0)
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ResourceError, match="a worker was killed, .* with a smaller --jobs"):
        next(results)


def test_a_script_that_its_workers_run_again_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from sdxl_mel.execution import map_jobs\nprint(list(map_jobs(abs, [1, 2], backend='processes', workers=1)))\n"
    )
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    with pytest.raises(InputError, match='no worker could begin: .*under `if __name__ == "__main__":`'):
        list(map_jobs(square, range(3), backend="processes", workers=1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals a group of processes")
@every_backend
def test_an_interruption_leaves_no_worker(backend: Backend, tmp_path: Path) -> None:
    # A program that was started in the background may have been told to ignore Ctrl-C; this one is not to.
    program = f"""
import signal
from pathlib import Path
from sdxl_mel.execution import map_jobs
from tests.test_execution import touch

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in map_jobs(touch, (Path({str(tmp_path)!r}) / str(n) for n in range(10**6)), backend={backend!r}, workers=2):
        pass
"""
    script = tmp_path.with_suffix(".py")
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, str(script)], start_new_session=True, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert errors.count("Traceback") == 1, errors
    assert "KeyboardInterrupt" in errors
    made = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == made

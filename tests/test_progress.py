"""Progress and messages: one stream of events, shown by whatever sink the entry point chose."""

import io
import json
import threading
from contextlib import closing

import pytest

from sdxl_mel import progress as module
from sdxl_mel.execution import map_jobs
from sdxl_mel.progress import (
    Advanced,
    Event,
    Finished,
    JsonLines,
    Lines,
    Message,
    Started,
    log,
    muted,
    named_sink,
    progress,
    showing,
    track,
)


def work() -> None:
    log("hello")
    log("more", detail=True)
    with progress(4, "train", "steps", done=1) as ticker:
        ticker.advance(note="loss 0.5")
        ticker.advance(2)


def test_a_job_is_a_stream_of_events() -> None:
    events: list[Event] = []
    with showing(events.append):
        work()
    greeting, more, started, first, last, finished = events
    assert (greeting, more) == (Message("hello"), Message("more", detail=True))
    assert isinstance(started, Started) and isinstance(finished, Finished)
    assert isinstance(first, Advanced) and isinstance(last, Advanced)
    assert (started.what, started.unit, started.total, started.done) == ("train", "steps", 4, 1)
    assert {started.job, first.job, last.job, finished.job} == {started.job}
    assert [first.done, last.done, finished.done] == [2, 4, 4]
    assert first.note == "loss 0.5"
    assert first.remaining_seconds == pytest.approx(2 / first.rate)
    assert last.remaining_seconds == 0
    assert finished.seconds >= 3 / last.rate


def test_what_an_earlier_run_finished_is_not_rated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    events: list[Event] = []
    with showing(events.append), progress(1000, "train", "steps", done=500) as ticker:
        now[0] += 10.0
        ticker.advance(20)
    advanced = events[1]
    assert isinstance(advanced, Advanced)
    assert (advanced.rate, advanced.remaining_seconds) == (2.0, 240.0)


def test_json_lines_say_the_same() -> None:
    stream, events = io.StringIO(), []
    lines = JsonLines(stream)

    def both(event: Event) -> None:
        events.append(event)
        lines(event)

    with showing(both):
        work()
    parsed = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.pop("event") for line in parsed] == [type(event).__name__.lower() for event in events]
    assert parsed == [vars(event) for event in events]
    assert parsed[-2]["rate"] > 0 and parsed[-2]["remaining_seconds"] == 0.0


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with showing(Lines()):
        for _ in track(range(40), 40, "cook", "eggs"):
            now[0] += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "cook: 15/40 eggs, 1.00/s, 25 s left",
        "cook: 30/40 eggs, 1.00/s, 10 s left",
        "cook: 40/40 eggs, 1.00/s, 0 s left",
    ]


@pytest.mark.parametrize(
    ("name", "verbose", "shown"),
    [
        ("auto", False, ["hello", "train: 4/4"]),
        ("lines", True, ["hello", "more", "train: 4/4"]),
        ("bar", False, ["hello", "train"]),
        ("none", True, []),
        ("json", False, ['"text": "hello"', '"text": "more"', '"event": "advanced"', '"event": "finished"']),
    ],
)
def test_sinks_by_name(name, verbose: bool, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with showing(named_sink(name, verbose=verbose)):
        work()
    said = capsys.readouterr().err
    assert all(text in said for text in shown)
    assert bool(said) == bool(shown)
    assert ("more" in said) == ("more" in "".join(shown))


def test_jobs_within_jobs_have_bars_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(named_sink("bar")), progress(2, "outer") as outer:
        with progress(3, "inner") as inner:
            inner.advance(3)
        outer.advance(2)
    said = capsys.readouterr().err
    assert "outer" in said and "inner" in said


def test_the_sink_before_comes_back() -> None:
    outer: list[Event] = []
    inner: list[Event] = []
    with showing(outer.append):
        with pytest.raises(KeyboardInterrupt), showing(inner.append):
            log("inside")
            raise KeyboardInterrupt
        with muted():
            log("nowhere")
        with muted(False):
            log("outside")
    assert (inner, outer) == ([Message("inside")], [Message("outside")])


def test_two_jobs_of_one_process_have_a_sink_each() -> None:
    said: dict[str, list[Event]] = {"one": [], "two": []}
    together = threading.Barrier(2)

    def job(name: str) -> None:
        with showing(said[name].append):
            together.wait()
            with closing(map_jobs(log, [name] * 3, workers=2)) as results:
                assert list(results) == [None] * 3

    threads = [threading.Thread(target=job, args=(name,)) for name in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {name: [Message(name)] * 3 for name in said}


def test_an_error_ends_a_job() -> None:
    events: list[Event] = []
    with showing(events.append), pytest.raises(ValueError, match="burnt"):
        for item in track(range(9), 9, "cook"):
            if item == 2:
                raise ValueError("burnt")
    last = events[-1]
    assert isinstance(last, Finished) and (last.done, last.total) == (2, 9)
